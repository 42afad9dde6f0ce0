//! Disk space: what a writable layer uses, and what is left.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use super::{
    RootfsError,
    remove::names,
    tree::{MAX_PATH, Symlinks, Tree, TreePath},
};

/// Bytes that the tree below `upper` takes on disk: blocks, so a hole is free; a file with
/// several names counts once. 0 when there is no such directory.
///
/// The container may run: what goes while we look is passed over, and a directory that becomes a
/// symlink is not followed.
pub fn size(upper: &Path) -> Result<u64, RootfsError> {
    let failed = |path: &Path, source: io::Error| RootfsError::Io {
        step: "look at",
        path: upper.join(path),
        source,
    };
    let tree = match Tree::open(upper, Symlinks::Refused) {
        Ok(tree) => tree,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(source) => return Err(failed(Path::new(""), source)),
    };
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut pending = vec![TreePath::default()];
    while let Some(path) = pending.pop() {
        let dir = match tree.listing(&path) {
            Ok(dir) => dir,
            Err(source) if is_gone(&source) => continue,
            Err(source) => return Err(failed(path.as_path(), source)),
        };
        for name in names(dir.as_fd()).map_err(|source| failed(path.as_path(), source))? {
            let below = path.as_path().join(OsStr::from_bytes(name.as_bytes()));
            let stat = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(source) => return Err(failed(&below, source.into())),
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let below = TreePath::parse(below.as_os_str().as_bytes(), MAX_PATH)
                    .map_err(|fault| failed(&below, io::Error::other(fault)))?;
                pending.push(below);
            } else if stat.st_nlink > 1 && !seen.insert(stat.st_ino) {
                continue;
            }
            bytes += stat.st_blocks as u64 * 512;
        }
    }
    Ok(bytes)
}

fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Bytes that can still be written to the file system of `path`.
pub(crate) fn free(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    // As root we could also use what is reserved, but a full disk stops the host.
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
