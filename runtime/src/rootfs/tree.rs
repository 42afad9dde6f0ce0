//! Writing a file tree that somebody else describes, without ever leaving it.
//!
//! A path becomes a [`TreePath`] (checked), then a [`Place`]: its parent directory, found by the
//! kernel inside the root (pathrs, openat2), and a last part that is never followed. All that is
//! made, is made by a system call on that pair. Image layers and writable layers both go this way.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use pathrs::{
    Root,
    error::ErrorKind,
    flags::{OpenFlags, ResolverFlags},
};
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::xattr::{self, Xattr};

pub(crate) const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
/// What directories that wait for their time may take in memory.
const MAX_LATE_BYTES: usize = 256 << 20;

/// Why a path is not one inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    #[error("it is absolute")]
    Absolute,
    #[error("it has a `..`")]
    Up,
    #[error("it is longer than {MAX_PATH} bytes, or a part of it than {MAX_NAME}")]
    Long,
    #[error("it is deeper than {0} directories")]
    Deep(usize),
    #[error("it has a zero byte")]
    Zero,
}

/// A relative path without `.`, `..` and empty parts. Empty: the root itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct TreePath(PathBuf);

impl TreePath {
    /// `./a//b/` is `a/b`.
    pub(crate) fn parse(bytes: &[u8], max_depth: usize) -> Result<Self, PathFault> {
        if bytes.first() == Some(&b'/') {
            return Err(PathFault::Absolute);
        }
        if bytes.len() > MAX_PATH {
            return Err(PathFault::Long);
        }
        if bytes.contains(&0) {
            return Err(PathFault::Zero);
        }
        let mut path = PathBuf::new();
        let mut depth = 0;
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(PathFault::Up),
                part if part.len() > MAX_NAME => return Err(PathFault::Long),
                part => path.push(OsStr::from_bytes(part)),
            }
            depth += 1;
        }
        if depth > max_depth {
            Err(PathFault::Deep(max_depth))
        } else {
            Ok(Self(path))
        }
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// The last part; None for the root.
    pub(crate) fn name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }

    pub(crate) fn parent(&self) -> TreePath {
        Self(self.0.parent().unwrap_or(Path::new("")).to_owned())
    }

    /// The same directory, another last part. `name` is one checked part.
    pub(crate) fn sibling(&self, name: &[u8]) -> TreePath {
        Self(self.0.with_file_name(OsStr::from_bytes(name)))
    }
}

/// What an entry has besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<Xattr>,
}

/// How symlinks among the parents are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// As a process would whose `/` is the tree's root.
    InRoot,
    Refused,
}

pub(crate) struct Tree {
    root: Root,
    /// The last parent: entries come directory by directory.
    parent: Option<(TreePath, Rc<OwnedFd>)>,
    late: Vec<Late>,
    late_bytes: usize,
    /// Times of directories that were there before.
    kept: HashMap<TreePath, (i64, u32)>,
}

/// What making further entries in a directory would undo, or what would change those entries.
struct Late {
    path: TreePath,
    mtime: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

impl Tree {
    pub(crate) fn open(dir: &Path, symlinks: Symlinks) -> io::Result<Self> {
        let mut root = Root::open(dir).map_err(from_pathrs)?;
        if symlinks == Symlinks::Refused {
            root.set_resolver_flags(ResolverFlags::NO_SYMLINKS);
        }
        Ok(Self {
            root,
            parent: None,
            late: Vec::new(),
            late_bytes: 0,
            kept: HashMap::new(),
        })
    }

    /// Where `path` is or will be. The error is of its parent: `NotFound`, `NotADirectory`, a
    /// symlink loop (ELOOP, which is any symlink when they are refused).
    pub(crate) fn place(&mut self, path: &TreePath) -> io::Result<Place> {
        let parent = path.parent();
        let dir = match &self.parent {
            Some((cached, dir)) if *cached == parent => Rc::clone(dir),
            _ => Rc::new(self.directory(&parent)?),
        };
        self.parent = Some((parent, Rc::clone(&dir)));
        let name = path.name().unwrap_or(OsStr::new(".")).to_owned();
        Ok(Place { dir, name })
    }

    /// Opens a directory as a path (`O_PATH`).
    pub(crate) fn directory(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let path = if path.is_root() {
            Path::new(".")
        } else {
            path.as_path()
        };
        let handle = self.root.resolve(path).map_err(from_pathrs)?;
        // pathrs hands out what it found, whatever that is.
        match FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) {
            FileType::Directory => Ok(handle.into()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Opens a directory to list it.
    pub(crate) fn listing(&self, path: &TreePath) -> io::Result<OwnedFd> {
        let path = if path.is_root() {
            Path::new(".")
        } else {
            path.as_path()
        };
        let flags = OpenFlags::O_RDONLY | OpenFlags::O_DIRECTORY | OpenFlags::O_CLOEXEC;
        Ok(self
            .root
            .open_subpath(path, flags)
            .map_err(from_pathrs)?
            .into())
    }

    /// Forgets the last parent, after something else than a new entry happened to the tree.
    pub(crate) fn forget_parent(&mut self) {
        self.parent = None;
    }

    /// Names in the directory of `path` are about to change: its own time stays what it is, unless
    /// the directory gets attributes itself.
    pub(crate) fn keep_time(&mut self, path: &TreePath) -> io::Result<()> {
        let parent = path.parent();
        if self.kept.contains_key(&parent) {
            return Ok(());
        }
        let Some(stat) = self.place(&parent)?.stat()? else {
            return Err(Errno::NOENT.into());
        };
        self.late_bytes += size_of::<Late>() + parent.as_path().as_os_str().len();
        self.within_limit()?;
        let time = (stat.st_mtime, stat.st_mtime_nsec as u32);
        self.kept.insert(parent, time);
        Ok(())
    }

    fn within_limit(&self) -> io::Result<()> {
        if self.late_bytes > MAX_LATE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the names of the directories take more than 256 MiB",
            ));
        }
        Ok(())
    }

    /// Gives a directory its attributes: those that its content would disturb, at
    /// [`Tree::finish`].
    pub(crate) fn dress_directory(
        &mut self,
        path: &TreePath,
        place: &Place,
        mut attributes: Attributes,
    ) -> io::Result<()> {
        let at = attributes
            .xattrs
            .iter()
            .position(|(key, _)| key == xattr::DEFAULT_ACL);
        let default_acl = at.map(|at| attributes.xattrs.remove(at).1);
        place.dress(FileType::Directory, &attributes)?;
        self.late_bytes += size_of::<Late>()
            + path.as_path().as_os_str().len()
            + default_acl.as_ref().map_or(0, Vec::len);
        self.within_limit()?;
        self.late.push(Late {
            path: path.clone(),
            mtime: attributes.mtime,
            default_acl,
        });
        Ok(())
    }

    /// Sets what waited. The error's path is the directory's.
    pub(crate) fn finish(mut self) -> Result<(), (PathBuf, io::Error)> {
        let kept = std::mem::take(&mut self.kept).into_iter();
        let kept = kept.map(|(path, mtime)| Late {
            path,
            mtime,
            default_acl: None,
        });
        let late = std::mem::take(&mut self.late).into_iter().rev();
        for late in kept.chain(late) {
            let set = |tree: &mut Self| {
                let place = tree.place(&late.path)?;
                // A later entry may have taken its place.
                if place.kind()? != Some(FileType::Directory) {
                    return Ok(());
                }
                if let Some(acl) = &late.default_acl {
                    place.set_xattr(xattr::DEFAULT_ACL, acl)?;
                }
                place.set_mtime(late.mtime)
            };
            match set(&mut self) {
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| (late.path.0.clone(), source))?,
            }
        }
        Ok(())
    }
}

/// An open directory and a name in it (`.`: the directory itself).
#[derive(Debug, Clone)]
pub(crate) struct Place {
    dir: Rc<OwnedFd>,
    name: OsString,
}

impl Place {
    pub(crate) fn stat(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(crate) fn kind(&self) -> io::Result<Option<FileType>> {
        Ok(self
            .stat()?
            .map(|stat| FileType::from_raw_mode(stat.st_mode)))
    }

    /// Overlayfs' mark of a deleted entry: a character device 0:0.
    pub(crate) fn is_whiteout(&self) -> io::Result<bool> {
        Ok(self.stat()?.is_some_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
        }))
    }

    pub(crate) fn make_file(&self) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.dir, &self.name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// A regular file that is there, to be changed. Nobody else works in the tree.
    pub(crate) fn open_file(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.dir, &self.name, flags, Mode::empty())?.into())
    }

    pub(crate) fn make_directory(&self) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.dir, &self.name, Mode::RWXU)?)
    }

    pub(crate) fn make_symlink(&self, target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.dir, &self.name)?)
    }

    /// Another name for `target`, itself if that is a symlink.
    pub(crate) fn make_link(&self, target: &Place) -> io::Result<()> {
        Ok(rustix::fs::linkat(
            &target.dir,
            &target.name,
            &self.dir,
            &self.name,
            AtFlags::empty(),
        )?)
    }

    /// A fifo, socket or device.
    pub(crate) fn make_node(&self, kind: FileType, device: u64) -> io::Result<()> {
        Ok(rustix::fs::mknodat(
            &self.dir,
            &self.name,
            kind,
            Mode::RUSR | Mode::WUSR,
            device,
        )?)
    }

    /// Removes the entry unless it is a directory with content.
    pub(crate) fn clear(&self) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(
                &self.dir,
                &self.name,
                AtFlags::REMOVEDIR,
            )?),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Owner, mode, extended attributes and time. In this order: a change of owner clears setuid
    /// and capabilities, an access list goes on top of a mode.
    pub(crate) fn dress(&self, kind: FileType, attributes: &Attributes) -> io::Result<()> {
        rustix::fs::chownat(
            &self.dir,
            &self.name,
            Some(Uid::from_raw_unchecked(attributes.uid)),
            Some(Gid::from_raw_unchecked(attributes.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if kind != FileType::Symlink {
            let mode = Mode::from_raw_mode(attributes.mode & 0o7777);
            rustix::fs::chmodat(&self.dir, &self.name, mode, AtFlags::empty())?;
        }
        for (key, value) in &attributes.xattrs {
            self.set_xattr(key, value)?;
        }
        self.set_mtime(attributes.mtime)
    }

    /// Takes away the extended attributes of which `is_ours` and that are not `wanted`.
    pub(crate) fn undress(
        &self,
        wanted: &[Xattr],
        is_ours: impl Fn(&[u8]) -> bool,
    ) -> io::Result<()> {
        for (key, value) in xattr::list(self.dir.as_fd(), &self.name)? {
            let stays = |(k, v): &Xattr| *k == key && *v == value;
            if is_ours(&key) && !wanted.iter().any(stays) {
                xattr::remove(self.dir.as_fd(), &self.name, &key)?;
            }
        }
        Ok(())
    }

    pub(crate) fn set_xattr(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        xattr::set(self.dir.as_fd(), &self.name, key, value)
    }

    fn set_mtime(&self, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: i64::from(nanoseconds),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(rustix::fs::utimensat(
            &self.dir,
            &self.name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

/// pathrs' errors say no more to a caller than the errno below.
pub(crate) fn from_pathrs(error: pathrs::error::Error) -> io::Error {
    match error.kind() {
        ErrorKind::OsError(Some(errno)) => io::Error::from_raw_os_error(errno),
        _ => io::Error::other(error),
    }
}

/// For messages.
pub(crate) fn shown(bytes: &[u8]) -> PathBuf {
    let mut bytes = bytes.to_owned();
    bytes.truncate(MAX_PATH);
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_path_stays_in_the_tree() {
        for (text, path) in [
            ("./a//b/", "a/b"),
            ("a", "a"),
            ("./", ""),
            ("", ""),
            ("..a", "..a"),
        ] {
            let parsed = TreePath::parse(text.as_bytes(), 8).unwrap();
            assert_eq!(parsed.as_path(), Path::new(path), "{text}");
        }
        for (text, fault) in [
            ("/a", PathFault::Absolute),
            ("a/../b", PathFault::Up),
            ("..", PathFault::Up),
            ("a\0b", PathFault::Zero),
            ("a/b/c", PathFault::Deep(2)),
            (&"x".repeat(256), PathFault::Long),
            (&"x/".repeat(2100), PathFault::Long),
        ] {
            assert_eq!(TreePath::parse(text.as_bytes(), 2), Err(fault), "{text}");
        }
    }
}
