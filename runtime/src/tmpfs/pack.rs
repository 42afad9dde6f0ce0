//! Writing the archive: GNU's format, with its sparse files and long names.

use std::{
    collections::HashMap,
    ffi::{CString, OsStr},
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, major, minor},
    io::Errno,
};
use tar::{Builder, EntryType, Header, HeaderMode};

use super::TmpfsError;
use crate::rootfs::names;

/// Nothing changes meanwhile: the tasks are stopped.
pub(super) fn pack<W: Write>(root: BorrowedFd<'_>, out: W) -> Result<W, TmpfsError> {
    let mut out = Builder::new(out);
    out.mode(HeaderMode::Complete);
    out.sparse(true);
    let stat = rustix::fs::fstat(root).map_err(|errno| read(Path::new("."), errno))?;
    let mut packing = Packing {
        out,
        device: stat.st_dev,
        links: HashMap::new(),
        pending: vec![PathBuf::new()],
    };
    // One directory open at a time, however deep the container dug. Depth first: GNU tar takes a
    // directory for done once an entry comes that is not below it, and sets its time.
    while let Some(path) = packing.pending.pop() {
        packing.directory(root, &path)?;
    }
    packing.out.into_inner().map_err(TmpfsError::Write)
}

struct Packing<W: Write> {
    out: Builder<W>,
    /// Of the file system; nothing of another is packed.
    device: u64,
    /// The first path of an inode that has several.
    links: HashMap<u64, PathBuf>,
    /// Directories whose entries are not written yet.
    pending: Vec<PathBuf>,
}

impl<W: Write> Packing<W> {
    fn directory(&mut self, root: BorrowedFd<'_>, path: &Path) -> Result<(), TmpfsError> {
        let from = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(root, from, flags, Mode::empty())
            .map_err(|errno| read(path, errno))?;
        let stat = rustix::fs::fstat(&dir).map_err(|errno| read(path, errno))?;
        let mut shown = from.as_os_str().as_bytes().to_owned();
        shown.push(b'/');
        self.header(EntryType::Directory, &stat, &shown, b"")?;
        // A mount point's content is another file system's.
        if stat.st_dev != self.device {
            return Ok(());
        }
        let mut names = names(dir.as_fd()).map_err(|source| TmpfsError::Read {
            path: path.to_owned(),
            source,
        })?;
        names.sort();
        let first = self.pending.len();
        for name in names {
            let below = path.join(OsStr::from_bytes(name.as_bytes()));
            self.entry(dir.as_fd(), &name, below)?;
        }
        self.pending[first..].reverse();
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: PathBuf,
    ) -> Result<(), TmpfsError> {
        let failed = |errno| read(&path, errno);
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            self.pending.push(path);
            return Ok(());
        }
        if stat.st_dev != self.device {
            return Ok(());
        }
        let bytes = path.as_os_str().as_bytes();
        if kind != FileType::Socket && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                let first = first.as_os_str().as_bytes().to_owned();
                return self.header(EntryType::Link, &stat, bytes, &first);
            }
            self.links.insert(stat.st_ino, path.clone());
        }
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
                self.out
                    .append_file(&path, &mut File::from(file))
                    .map_err(TmpfsError::Write)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                self.header(EntryType::Symlink, &stat, bytes, target.as_bytes())
            }
            FileType::Fifo => self.header(EntryType::Fifo, &stat, bytes, b""),
            FileType::CharacterDevice => self.header(EntryType::Char, &stat, bytes, b""),
            FileType::BlockDevice => self.header(EntryType::Block, &stat, bytes, b""),
            // CRIU makes the sockets again that somebody listens on.
            _ => Ok(()),
        }
    }

    /// An entry without content.
    fn header(
        &mut self,
        kind: EntryType,
        stat: &Stat,
        path: &[u8],
        link: &[u8],
    ) -> Result<(), TmpfsError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(stat.st_uid.into());
        header.set_gid(stat.st_gid.into());
        header.set_mtime(stat.st_mtime.max(0) as u64);
        header.set_size(0);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header
                .set_device_major(major(stat.st_rdev))
                .and_then(|()| header.set_device_minor(minor(stat.st_rdev)))
                .map_err(TmpfsError::Write)?;
        }
        let old = header.as_old_mut();
        if !fit(&mut old.name, path) {
            self.long(EntryType::GNULongName, path)?;
        }
        if !fit(&mut old.linkname, link) {
            self.long(EntryType::GNULongLink, link)?;
        }
        header.set_cksum();
        self.out
            .append(&header, std::io::empty())
            .map_err(TmpfsError::Write)
    }

    /// The name of the entry that follows.
    fn long(&mut self, kind: EntryType, name: &[u8]) -> Result<(), TmpfsError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        fit(&mut header.as_old_mut().name, b"././@LongLink");
        let mut terminated = name.to_owned();
        terminated.push(0);
        header.set_size(terminated.len() as u64);
        header.set_cksum();
        self.out
            .append(&header, terminated.as_slice())
            .map_err(TmpfsError::Write)
    }
}

/// As much of `bytes` as the field has room for; whether that is all.
fn fit(field: &mut [u8], bytes: &[u8]) -> bool {
    let len = bytes.len().min(field.len());
    field[..len].copy_from_slice(&bytes[..len]);
    len == bytes.len()
}

fn read(path: &Path, errno: Errno) -> TmpfsError {
    TmpfsError::Read {
        path: path.to_owned(),
        source: errno.into(),
    }
}
