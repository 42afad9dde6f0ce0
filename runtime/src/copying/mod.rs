//! Files copied out of a container and into it, as tar, whether it runs or not.
//!
//! A container that runs may be hostile and quick: it can put a link in the place of a directory
//! between two calls. So a path is resolved by the kernel inside the container's root (pathrs),
//! everything below it is opened by descriptor and never followed, and what is set on a file is
//! set through the descriptor that made it.

mod pack;
mod unpack;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

pub use pack::pack;
use rustix::fs::{Mode, OFlags, openat};
pub use unpack::unpack;

/// Deeper trees are refused, in both directions.
const DEPTH: usize = 128;

/// What a path in a container leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub is_dir: bool,
    pub mode: u32,
    pub size: u64,
}

/// A path inside `root`, its links followed there: opened as a path only.
pub(crate) fn resolve(root: &Path, path: &str) -> io::Result<OwnedFd> {
    let path = match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    };
    pathrs::Root::open(root)
        .and_then(|root| root.resolve(path))
        .map(OwnedFd::from)
        .map_err(crate::rootfs::tree::from_pathrs)
}

/// What it is.
pub(crate) fn stat(root: &Path, path: &str) -> io::Result<Found> {
    let stat = rustix::fs::fstat(resolve(root, path)?)?;
    let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    Ok(Found {
        is_dir: kind.is_dir(),
        mode: stat.st_mode & 0o7777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
    })
}

/// A directory that was opened as a path, to be listed or written to.
fn open_dir(dir: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, ".", flags, Mode::empty())?)
}

fn open_below(dir: BorrowedFd<'_>, name: &std::ffi::OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}
