//! The programs that CRIU runs, where it looks for them first.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// Installed beside the shim.
const TAR: &str = "godwit-tar";

/// Makes `dir`, where `tar` is ours. None: it is not installed, and GNU's will do.
pub fn tools(dir: &Path) -> io::Result<Option<PathBuf>> {
    let tar = std::env::current_exe()?.with_file_name(TAR);
    if !tar.exists() {
        return Ok(None);
    }
    fs::create_dir_all(dir)?;
    let link = dir.join("tar");
    // Another one: the shim that made it was of another version, elsewhere.
    if fs::read_link(&link).ok().as_ref() != Some(&tar) {
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(&tar, &link)?,
        }
    }
    Ok(Some(dir.to_owned()))
}
