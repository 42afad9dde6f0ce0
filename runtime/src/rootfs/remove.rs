//! Deleting a tree that a container filled: it may be deeper than a path can name or than we can
//! hold directories open, and a mount may have been left in it.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::RootfsError;

/// Deeper than this, a directory is first moved up to the top.
const MAX_OPEN: usize = 64;

/// Deletes `path` and all below it, never through a symlink and never into a mount. Goes on after
/// errors and reports the first. Fine when there is nothing.
pub(crate) fn remove_tree(path: &Path) -> Result<(), RootfsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(source) => {
            return Err(RootfsError::Remove {
                path: path.to_owned(),
                others: 0,
                source: source.into(),
            });
        }
    };
    let mut removal = Removal {
        top,
        moved: 0,
        first: None,
        failed: 0,
    };
    // What was moved up is met by the next pass over the top.
    loop {
        let before = removal.moved;
        let top = removal.top.as_fd().try_clone_to_owned();
        match top {
            Ok(top) => removal.empty(&top, path, 0),
            Err(source) => removal.note(path, source),
        }
        if removal.moved == before {
            break;
        }
    }
    if removal.first.is_none() {
        match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(source) => removal.note(path, source.into()),
        }
    }
    match removal.first {
        None => Ok(()),
        Some((path, source)) => Err(RootfsError::Remove {
            path,
            others: removal.failed - 1,
            source,
        }),
    }
}

struct Removal {
    top: OwnedFd,
    /// Directories moved up so far; names the next one.
    moved: u64,
    first: Option<(PathBuf, io::Error)>,
    failed: u64,
}

impl Removal {
    fn note(&mut self, path: &Path, source: io::Error) {
        self.failed += 1;
        self.first.get_or_insert_with(|| (path.to_owned(), source));
    }

    /// Deletes what is in `dir`; `path` is for messages.
    fn empty(&mut self, dir: &OwnedFd, path: &Path, depth: usize) {
        let names = match names(dir.as_fd()) {
            Ok(names) => names,
            Err(source) => return self.note(path, source),
        };
        for name in names {
            let below = || path.join(name.to_string_lossy().as_ref());
            let result = match rustix::fs::unlinkat(dir, &name, AtFlags::empty()) {
                Err(Errno::ISDIR) => self.remove_dir(dir, &name, &below(), depth),
                other => other.map_err(io::Error::from),
            };
            match result {
                Ok(()) => {}
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => self.note(&below(), source),
            }
        }
    }

    fn remove_dir(
        &mut self,
        parent: &OwnedFd,
        name: &CString,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = rustix::fs::statx(
            parent,
            name,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::BASIC_STATS,
        )?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(Errno::BUSY.into());
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            other => return Ok(other?),
        }
        if depth >= MAX_OPEN {
            // The name is free: nobody else works in a tree that is being deleted.
            let moved = format!(".godwit-deep-{}", self.moved);
            self.moved += 1;
            return Ok(rustix::fs::renameat(parent, name, &self.top, moved)?);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        let failed = self.failed;
        let moved = self.moved;
        self.empty(&dir, path, depth + 1);
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // The cause is noted already.
            Err(Errno::NOTEMPTY) if self.failed > failed || self.moved > moved => Ok(()),
            other => Ok(other?),
        }
    }
}

/// The names in a directory, `.` and `..` left out.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
