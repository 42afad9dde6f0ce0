//! An overlay's writable layer as the tar of an OCI layer.
//!
//! Entries come sorted by their bytes, parents first, so that the same tree gives the same tar.
//! Overlayfs' marks become the specification's: a character device 0:0 is `.wh.NAME`, the opaque
//! attribute `.wh..wh..opq`. Of extended attributes those that unpacking takes are written. A hole
//! is written as zeros: sparse members are what the specification advises against. A socket is left
//! out, as no tar can hold one.
//!
//! The tree is a container's: nothing in it is followed, all of it is opened below its parent.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use tar::EntryType;

use super::tar_writer::{Entry, TarWriter};
use crate::rootfs::xattr::{self, Xattr};

/// As deep as unpacking goes.
const MAX_DEPTH: usize = 256;
const MAX_ENTRIES: u64 = 2_000_000;
const BUFFER: usize = 256 << 10;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a tree can't be a layer. Paths are inside the tree.
#[derive(Debug, thiserror::Error)]
pub enum PackFault {
    #[error("could not {step} `{entry}`")]
    Io {
        step: &'static str,
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("`{entry}` can't be in an image: a name that begins with `.wh.` marks a deleted file")]
    Name { entry: String },
    #[error("`{entry}` is deeper than {MAX_DEPTH} directories")]
    Deep { entry: String },
    #[error("it has more than {MAX_ENTRIES} entries")]
    Entries,
    #[error("`{entry}` changed while it was read")]
    Changed { entry: String },
    #[error("could not write the layer")]
    Write(#[source] io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// What was packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packed {
    pub entries: u64,
    /// Of its files.
    pub bytes: u64,
}

/// The latest time that an entry may have, in seconds since 1970; None: any.
pub type Clamp = Option<i64>;

/// Packs the tree at `upper`. `top` is the layer below: the root's own entry is written only when
/// its mode or owner differ from that one's. `go_on` is asked now and then.
pub fn pack(
    upper: &Path,
    top: Option<&Path>,
    clamp: Clamp,
    out: &mut dyn Write,
    go_on: &dyn Fn() -> bool,
) -> Result<Packed, PackFault> {
    let open = |path: &Path| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_err(failed("open", b"."))
    };
    let root = open(upper)?;
    let stat = rustix::fs::fstat(&root).map_err(failed("look at", b"."))?;
    let mut packing = Packing {
        tar: TarWriter::new(out),
        links: HashMap::new(),
        packed: Packed::default(),
        buffer: vec![0; BUFFER],
        clamp,
        go_on,
    };
    let same = |other: &Stat| {
        (other.st_mode, other.st_uid, other.st_gid) == (stat.st_mode, stat.st_uid, stat.st_gid)
    };
    let described = match top {
        Some(top) => {
            let below = rustix::fs::fstat(open(top)?).map_err(failed("look at", b"."))?;
            !same(&below)
        }
        None => true,
    };
    if described {
        let xattrs = kept(root.as_fd(), OsStr::new("."), b".")?;
        packing.entry(EntryType::Directory, b"./", b"", &stat, &xattrs)?;
    }
    packing.directory(&root, &mut Vec::new(), 0)?;
    packing.tar.finish().map_err(PackFault::Write)?;
    Ok(packing.packed)
}

struct Packing<'a> {
    tar: TarWriter<&'a mut dyn Write>,
    /// Where a file with several names was written.
    links: HashMap<(u64, u64), Vec<u8>>,
    packed: Packed,
    buffer: Vec<u8>,
    clamp: Clamp,
    go_on: &'a dyn Fn() -> bool,
}

impl Packing<'_> {
    /// What is in a directory; `path` is its own, and is the same again afterwards.
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), PackFault> {
        if depth >= MAX_DEPTH {
            return Err(PackFault::Deep { entry: shown(path) });
        }
        let mut names = crate::rootfs::names(dir.as_fd()).map_err(|source| PackFault::Io {
            step: "list",
            entry: shown(path),
            source,
        })?;
        names.sort();
        let length = path.len();
        for name in names {
            if !(self.go_on)() {
                return Err(PackFault::Interrupted);
            }
            path.extend(name.to_bytes());
            self.member(dir, &name, path, length, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn member(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        path: &mut Vec<u8>,
        parent: usize,
        depth: usize,
    ) -> Result<(), PackFault> {
        self.packed.entries += 1;
        if self.packed.entries > MAX_ENTRIES {
            return Err(PackFault::Entries);
        }
        let look = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = look.map_err(failed("look at", path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            let mut mark = path[..parent].to_owned();
            mark.extend(WHITEOUT);
            mark.extend(name.to_bytes());
            return self.mark(&mark);
        }
        if name.to_bytes().starts_with(WHITEOUT) {
            return Err(PackFault::Name { entry: shown(path) });
        }
        let base = OsStr::from_bytes(name.to_bytes());
        let xattrs = kept(dir.as_fd(), base, path)?;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            #[allow(clippy::unnecessary_cast)]
            let inode = (stat.st_dev as u64, stat.st_ino as u64);
            if let Some(first) = self.links.get(&inode) {
                let first = first.clone();
                return self.entry(EntryType::Link, path, &first, &stat, &[]);
            }
            self.links.insert(inode, path.clone());
        }
        match kind {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(dir, name, flags, Mode::empty())
                    .map_err(failed("open", path))?;
                let opaque = is_opaque(dir.as_fd(), base).map_err(failed("look at", path))?;
                path.push(b'/');
                self.entry(EntryType::Directory, path, b"", &stat, &xattrs)?;
                if opaque {
                    let mark = [path.as_slice(), OPAQUE].concat();
                    self.mark(&mark)?;
                }
                self.directory(&below, path, depth + 1)
            }
            FileType::RegularFile => self.file(dir, name, path, &xattrs),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed("read", path))?;
                self.entry(EntryType::Symlink, path, target.to_bytes(), &stat, &xattrs)
            }
            FileType::Fifo => self.entry(EntryType::Fifo, path, b"", &stat, &xattrs),
            FileType::CharacterDevice => self.entry(EntryType::Char, path, b"", &stat, &xattrs),
            FileType::BlockDevice => self.entry(EntryType::Block, path, b"", &stat, &xattrs),
            _ => {
                tracing::debug!(path = shown(path), "a socket is left out of the layer");
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        path: &[u8],
        xattrs: &[Xattr],
    ) -> Result<(), PackFault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed("open", path))?;
        let stat = rustix::fs::fstat(&file).map_err(failed("look at", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(PackFault::Changed { entry: shown(path) });
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.entry(EntryType::Regular, path, b"", &stat, xattrs)?;
        let mut content = File::from(file).take(size);
        let mut left = size;
        while left > 0 {
            if !(self.go_on)() {
                return Err(PackFault::Interrupted);
            }
            let n = content
                .read(&mut self.buffer)
                .map_err(|source| PackFault::Io {
                    step: "read",
                    entry: shown(path),
                    source,
                })?;
            if n == 0 {
                return Err(PackFault::Changed { entry: shown(path) });
            }
            self.tar
                .content(&self.buffer[..n])
                .map_err(PackFault::Write)?;
            left -= n as u64;
        }
        self.packed.bytes += size;
        self.tar.pad(size).map_err(PackFault::Write)
    }

    fn mark(&mut self, path: &[u8]) -> Result<(), PackFault> {
        self.tar
            .begin(&Entry {
                kind: EntryType::Regular,
                path,
                link: b"",
                mode: 0,
                uid: 0,
                gid: 0,
                mtime: (0, 0),
                device: (0, 0),
                size: 0,
                xattrs: &[],
            })
            .map_err(PackFault::Write)
    }

    fn entry(
        &mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        stat: &Stat,
        xattrs: &[Xattr],
    ) -> Result<(), PackFault> {
        let device = match kind {
            EntryType::Char | EntryType::Block => (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            _ => (0, 0),
        };
        #[allow(clippy::unnecessary_cast)]
        let mut mtime = (stat.st_mtime as i64, stat.st_mtime_nsec as u32);
        if let Some(latest) = self.clamp
            && mtime > (latest, 0)
        {
            mtime = (latest, 0);
        }
        self.tar
            .begin(&Entry {
                kind,
                path,
                link,
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime,
                device,
                size: match kind {
                    EntryType::Regular => u64::try_from(stat.st_size).unwrap_or(0),
                    _ => 0,
                },
                xattrs,
            })
            .map_err(PackFault::Write)
    }
}

/// The attributes that an image may carry, sorted.
fn kept(dir: BorrowedFd<'_>, name: &OsStr, path: &[u8]) -> Result<Vec<Xattr>, PackFault> {
    let mut xattrs = xattr::list(dir, name).map_err(|source| PackFault::Io {
        step: "read the attributes of",
        entry: shown(path),
        source,
    })?;
    xattrs.retain(|(name, _)| crate::image::layer::is_kept(name));
    Ok(xattrs)
}

fn is_opaque(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Errno> {
    let all = xattr::list(dir, name)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(all
        .iter()
        .any(|(key, value)| key == xattr::OPAQUE && value == b"y"))
}

fn failed<'a>(step: &'static str, path: &'a [u8]) -> impl Fn(Errno) -> PackFault + 'a {
    move |errno| PackFault::Io {
        step,
        entry: shown(path),
        source: errno.into(),
    }
}

fn shown(path: &[u8]) -> String {
    let path = if path.is_empty() { b"." } else { path };
    String::from_utf8_lossy(path).into_owned()
}
