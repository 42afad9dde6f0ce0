//! Writing a whole layer: the stream against nothing.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::{BufWriter, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat},
    io::Errno,
};

use super::{
    super::{
        remove::names,
        tree::{Attributes, MAX_PATH, Symlinks, Tree, TreePath},
        xattr::{self, Xattr},
    },
    DiffError, Mark,
    format::{
        Encoder, Entry, Kind, MAX_ENTRIES, MAX_TARGET, MAX_XATTR_NAME, MAX_XATTR_VALUE, MAX_XATTRS,
    },
    unpack::is_carried,
};

/// What a diff holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackReport {
    /// The root, and all that is below it.
    pub entries: u64,
    /// Content of files, holes left out.
    pub bytes: u64,
}

/// Writes all of `upper` to `out`. Nobody may change it meanwhile: the container is frozen or
/// stopped.
pub fn pack(upper: &Path, out: impl Write) -> Result<PackReport, DiffError> {
    let open = |source| DiffError::Open {
        path: upper.to_owned(),
        source,
    };
    // A path below never leads through a symlink: it was listed, not written by somebody.
    let tree = Tree::open(upper, Symlinks::Refused).map_err(open)?;
    let out = BufWriter::with_capacity(256 << 10, out);
    let mut packing = Packing {
        out: Encoder::new(out, Mark::NOTHING)?,
        links: HashMap::new(),
        buffer: vec![0; 256 << 10],
        report: PackReport::default(),
    };

    let root = tree.directory(&TreePath::default()).map_err(open)?;
    packing.entry(root.as_fd(), OsStr::new("."), Path::new(""))?;
    // Depth first, and one directory open at a time, however deep the container dug.
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let failed = |source| DiffError::ReadEntry {
            path: path.clone(),
            source,
        };
        let bytes = path.as_os_str().as_bytes();
        // Any depth will do that a path can name.
        let Ok(tree_path) = TreePath::parse(bytes, MAX_PATH) else {
            return Err(too_much(&path, "a path length of", bytes.len(), MAX_PATH));
        };
        let dir = tree.listing(&tree_path).map_err(failed)?;
        let mut names = names(dir.as_fd()).map_err(failed)?;
        // The same layer gives the same stream.
        names.sort();
        let mut directories = Vec::new();
        for name in names {
            let name = OsStr::from_bytes(name.as_bytes());
            let below = path.join(name);
            if packing.entry(dir.as_fd(), name, &below)? == FileType::Directory {
                directories.push(below);
            }
        }
        pending.extend(directories.into_iter().rev());
    }
    packing
        .out
        .end(packing.report.entries, packing.report.bytes)?;
    Ok(packing.report)
}

struct Packing<W> {
    out: Encoder<W>,
    /// The first path of an inode that has several.
    links: HashMap<u64, PathBuf>,
    buffer: Vec<u8>,
    report: PackReport,
}

impl<W: Write> Packing<W> {
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
    ) -> Result<FileType, DiffError> {
        let failed = |source: Errno| DiffError::ReadEntry {
            path: path.to_owned(),
            source: source.into(),
        };
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let bytes = path.as_os_str().as_bytes();
        check(path, "a path length of", bytes.len(), MAX_PATH)?;
        self.report.entries += 1;
        check(
            path,
            "an entry number of",
            self.report.entries as usize,
            MAX_ENTRIES as usize,
        )?;

        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let whiteout = file_type == FileType::CharacterDevice && stat.st_rdev == 0;
        // Overlayfs makes its whiteouts names of one inode; each stands for itself here.
        let several = stat.st_nlink > 1 && file_type != FileType::Directory && !whiteout;
        let first = if several {
            self.links.get(&stat.st_ino)
        } else {
            None
        };
        let mut file = None;
        let kind = match (first, file_type) {
            (Some(first), _) => Kind::Link {
                target: first.as_os_str().as_bytes().to_owned(),
            },
            (None, FileType::RegularFile) => {
                file = Some(open(dir, name, path, &stat)?);
                Kind::File {
                    size: stat.st_size as u64,
                }
            }
            (None, FileType::Directory) => Kind::Directory,
            (None, FileType::Symlink) => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                check(
                    path,
                    "a symlink target length of",
                    target.as_bytes().len(),
                    MAX_TARGET,
                )?;
                Kind::Symlink {
                    target: target.into_bytes(),
                }
            }
            (None, FileType::Fifo) => Kind::Fifo,
            (None, FileType::Socket) => Kind::Socket,
            (None, FileType::CharacterDevice) => Kind::Character { major, minor },
            (None, FileType::BlockDevice) => Kind::Block { major, minor },
            (None, FileType::Unknown) => return Err(failed(Errno::NOTSUP)),
        };
        if several && first.is_none() {
            self.links.insert(stat.st_ino, path.to_owned());
        }
        let attributes = Attributes {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            // A link's attributes are the first name's.
            xattrs: match kind {
                Kind::Link { .. } => Vec::new(),
                _ => xattrs(dir, name, path)?,
            },
        };
        self.out.entry(&Entry {
            path: bytes.to_owned(),
            attributes,
            kind,
        })?;
        if let Some(file) = file {
            self.content(&file, path, stat.st_size as u64)?;
        }
        Ok(file_type)
    }

    /// A file's runs of data. A file system that knows no holes has one run.
    fn content(&mut self, file: &OwnedFd, path: &Path, size: u64) -> Result<(), DiffError> {
        let failed = |source: Errno| DiffError::ReadEntry {
            path: path.to_owned(),
            source: source.into(),
        };
        let changed = || DiffError::Changed {
            path: path.to_owned(),
        };
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole from here on.
                Err(Errno::NXIO) => break,
                Err(errno) => return Err(failed(errno)),
            };
            if start >= size {
                break;
            }
            let end = rustix::fs::seek(file, SeekFrom::Hole(start))
                .map_err(failed)?
                .min(size);
            if end <= start {
                return Err(changed());
            }
            self.out.run(start, end - start)?;
            at = start;
            while at < end {
                let want = self.buffer.len().min((end - at) as usize);
                match rustix::io::pread(file, &mut self.buffer[..want], at) {
                    Ok(0) => return Err(changed()),
                    Ok(n) => {
                        self.out.data(&self.buffer[..n])?;
                        at += n as u64;
                    }
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            }
            self.report.bytes += end - start;
        }
        self.out.run(size, 0)
    }
}

/// Opens what `stat` saw, and nothing that came in its place.
fn open(dir: BorrowedFd<'_>, name: &OsStr, path: &Path, stat: &Stat) -> Result<OwnedFd, DiffError> {
    let failed = |source: Errno| DiffError::ReadEntry {
        path: path.to_owned(),
        source: source.into(),
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
    let now = rustix::fs::fstat(&file).map_err(failed)?;
    if (now.st_dev, now.st_ino, now.st_size) == (stat.st_dev, stat.st_ino, stat.st_size) {
        Ok(file)
    } else {
        Err(DiffError::Changed {
            path: path.to_owned(),
        })
    }
}

pub(super) fn xattrs(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
) -> Result<Vec<Xattr>, DiffError> {
    let mut xattrs = xattr::list(dir, name).map_err(|source| DiffError::ReadEntry {
        path: path.to_owned(),
        source,
    })?;
    xattrs.retain(|(name, _)| is_carried(name));
    check(
        path,
        "a number of extended attributes of",
        xattrs.len(),
        MAX_XATTRS,
    )?;
    for (name, value) in &xattrs {
        check(
            path,
            "an extended attribute's name length of",
            name.len(),
            MAX_XATTR_NAME,
        )?;
        check(
            path,
            "an extended attribute's length of",
            value.len(),
            MAX_XATTR_VALUE,
        )?;
    }
    Ok(xattrs)
}

pub(super) fn check(
    path: &Path,
    what: &'static str,
    found: usize,
    limit: usize,
) -> Result<(), DiffError> {
    if found > limit {
        Err(too_much(path, what, found, limit))
    } else {
        Ok(())
    }
}

fn too_much(path: &Path, what: &'static str, found: usize, limit: usize) -> DiffError {
    DiffError::TooMuch {
        path: path.to_owned(),
        what,
        found: found as u64,
        limit: limit as u64,
    }
}
