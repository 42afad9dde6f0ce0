//! Walking a layer for what changed since it was sent. Reads no file.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    io,
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use super::{
    super::{
        remove::names,
        tree::{MAX_PATH, Tree, TreePath},
    },
    DiffError,
    known::{Known, Stamp, is_linked},
    pack::check,
};

/// What a look came to. Paths come in an order in which they can be made, or removed.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub directories: Vec<PathBuf>,
    pub others: Vec<PathBuf>,
    pub removed: Vec<PathBuf>,
    /// Where a file with several names is already, by its inode.
    pub placed: HashMap<u64, PathBuf>,
    /// Large files that are known by another path: what is changed, and that path.
    pub moved: Vec<(PathBuf, PathBuf)>,
}

/// Compares the layer with what is known of it, and marks what it finds as seen in look `number`.
/// `is_still`: nobody may change it meanwhile.
pub(super) fn look(
    tree: &Tree,
    known: &mut HashMap<PathBuf, Known>,
    number: u32,
    is_still: bool,
) -> Result<Found, DiffError> {
    let mut looking = Looking {
        tree,
        known,
        number,
        is_still,
        found: Found::default(),
        unchanged: Vec::new(),
        changed: HashSet::new(),
        replaced: Vec::new(),
    };
    looking.walk()?;
    looking.join();
    looking.miss();
    Ok(looking.found)
}

struct Looking<'a> {
    tree: &'a Tree,
    known: &'a mut HashMap<PathBuf, Known>,
    number: u32,
    is_still: bool,
    found: Found,
    /// Names of files that have several.
    unchanged: Vec<(u64, PathBuf)>,
    /// Files that have several names.
    changed: HashSet<u64>,
    /// Changed files, by their inode, that may be known by another path.
    replaced: Vec<(u64, PathBuf)>,
}

impl Looking<'_> {
    fn walk(&mut self) -> Result<(), DiffError> {
        let root = self
            .tree
            .directory(&TreePath::default())
            .map_err(|source| DiffError::Open {
                path: PathBuf::new(),
                source,
            })?;
        self.entry(root.as_fd(), OsStr::new("."), PathBuf::new())?;
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let bytes = path.as_os_str().as_bytes();
            let Ok(tree_path) = TreePath::parse(bytes, MAX_PATH) else {
                check(&path, "a path length of", bytes.len(), MAX_PATH)?;
                continue;
            };
            let listed = self
                .tree
                .listing(&tree_path)
                .and_then(|dir| Ok((names(dir.as_fd())?, dir)));
            let (names, dir) = match listed {
                Ok(listed) => listed,
                Err(source) if !self.is_still && is_gone(&source) => continue,
                Err(source) => return Err(DiffError::ReadEntry { path, source }),
            };
            for name in names {
                let name = OsStr::from_bytes(name.as_bytes());
                let below = path.join(name);
                if let Some(directory) = self.entry(dir.as_fd(), name, below)? {
                    pending.push(directory);
                }
            }
        }
        Ok(())
    }

    /// Answers the path if it is a directory.
    fn entry(
        &mut self,
        dir: std::os::fd::BorrowedFd<'_>,
        name: &OsStr,
        path: PathBuf,
    ) -> Result<Option<PathBuf>, DiffError> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if !self.is_still => return Ok(None),
            Err(errno) => {
                let source = errno.into();
                return Err(DiffError::ReadEntry { path, source });
            }
        };
        check(&path, "a path length of", path.as_os_str().len(), MAX_PATH)?;
        let stamp = Stamp::of(&stat);
        let known = self.known.get_mut(&path);
        let is_linked = is_linked(&stat);
        let mut is_elsewhere = false;
        if let Some(known) = known {
            known.seen = self.number;
            if known.stamp == stamp && !known.unsure {
                if is_linked {
                    self.unchanged.push((stamp.ino, path));
                    return Ok(None);
                }
                return Ok(stamp.is_directory().then_some(path));
            }
            if known.stamp.is_directory() && !stamp.is_directory() {
                // What was in it goes first.
                known.seen = self.number.wrapping_sub(1);
            }
            is_elsewhere = known.stamp.ino != stamp.ino;
        } else {
            is_elsewhere |= true;
        }
        if is_linked {
            self.changed.insert(stamp.ino);
        }
        if stamp.is_directory() {
            self.found.directories.push(path.clone());
            return Ok(Some(path));
        }
        if is_elsewhere && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            self.replaced.push((stamp.ino, path.clone()));
        }
        self.found.others.push(path);
        Ok(None)
    }

    /// All names of a file that changed are sent, whenever they were looked at.
    fn join(&mut self) {
        for (ino, path) in std::mem::take(&mut self.unchanged) {
            if self.changed.contains(&ino) {
                self.found.others.push(path);
            } else {
                self.found.placed.insert(ino, path);
            }
        }
        let large = self
            .known
            .iter()
            .filter(|(_, known)| known.content.is_some())
            .map(|(path, known)| (known.stamp.ino, path));
        let large: HashMap<u64, &PathBuf> = large.collect();
        for (ino, path) in std::mem::take(&mut self.replaced) {
            if let Some(from) = large.get(&ino) {
                self.found.moved.push((path, from.to_path_buf()));
            }
        }
    }

    /// What was there and is not any more. What is in a directory comes before it.
    fn miss(&mut self) {
        let missed = self
            .known
            .iter()
            .filter(|(_, known)| known.seen != self.number);
        self.found.removed = missed.map(|(path, _)| path.clone()).collect();
        self.found.removed.sort_unstable_by(|a, b| b.cmp(a));
    }
}

/// The errors of what is not there any more, or is something else now.
pub(super) fn is_gone(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::STALE]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The directory of a path; None for the root.
pub(super) fn parent(path: &Path) -> Option<&Path> {
    path.parent()
}
