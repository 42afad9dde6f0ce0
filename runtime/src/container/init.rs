//! The reaper of `--init` on this host: a file that is bound into containers.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Built by `build.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/godwit-init"));

/// Where it is below the data root: by its content, so that one of another version, which a
/// container may be running, stays.
pub fn path(data: &Path) -> PathBuf {
    let digest = blake3::hash(PROGRAM).to_hex();
    data.join(format!("init-{}", &digest[..16]))
}

/// Writes it, if it is not there.
pub fn install(data: &Path) -> io::Result<()> {
    let path = path(data);
    if fs::read(&path).is_ok_and(|there| there == PROGRAM) {
        return Ok(());
    }
    let beside = path.with_extension("tmp");
    fs::write(&beside, PROGRAM)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755))?;
    fs::rename(&beside, &path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(arguments: &[&str]) -> Option<i32> {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path()).unwrap();
        install(dir.path()).unwrap();
        let status = Command::new(path(dir.path())).args(arguments).status();
        status.unwrap().code()
    }

    #[test]
    fn the_reaper_ends_as_its_command_does() {
        assert_eq!(run(&["--", "/bin/sh", "-c", "exit 7"]), Some(7));
        assert_eq!(run(&["/bin/sh", "-c", "kill -TERM $$"]), Some(143));
        assert_eq!(run(&["--", "/none/such"]), Some(127));
        assert_eq!(run(&["--", "/etc/passwd"]), Some(126));
        assert_eq!(run(&[]), Some(2));
    }
}
