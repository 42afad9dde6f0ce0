//! Extended attributes of an entry whose directory is open, be it a symlink or a device too.
//!
//! The system calls that take a descriptor need one opened for reading, which a device or a
//! symlink has not. So the entry is named by its directory's entry in `/proc`; its last part is
//! not followed.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::PathBuf,
};

use rustix::{fs::XattrFlags, io::Errno};

/// Applies to what is made in the directory afterwards, so it is set last.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
pub(crate) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
pub(crate) const CAPABILITY: &[u8] = b"security.capability";
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

fn path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}

pub(crate) fn set(dir: BorrowedFd<'_>, name: &OsStr, key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(
        path(dir, name),
        key,
        value,
        XattrFlags::empty(),
    )?)
}

pub(crate) fn remove(dir: BorrowedFd<'_>, name: &OsStr, key: &[u8]) -> io::Result<()> {
    match rustix::fs::lremovexattr(path(dir, name), key) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// All of them, sorted by name.
pub(crate) fn list(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<Xattr>> {
    let path = path(dir, name);
    let keys = match sized(
        || rustix::fs::llistxattr_query(&path),
        |buffer| rustix::fs::llistxattr(&path, buffer),
    ) {
        // The file system knows none.
        Err(Errno::OPNOTSUPP) => Vec::new(),
        keys => keys?,
    };
    let mut xattrs = Vec::new();
    for key in keys.split(|b| *b == 0).filter(|key| !key.is_empty()) {
        match sized(
            || rustix::fs::lgetxattr_query(&path, key),
            |buffer| rustix::fs::lgetxattr(&path, key, buffer),
        ) {
            Ok(value) => xattrs.push((key.to_owned(), value)),
            // Gone since.
            Err(Errno::NODATA) => {}
            Err(source) => return Err(source.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Fills a buffer of the length that `query` says is needed.
fn sized(
    query: impl Fn() -> Result<usize, Errno>,
    fill: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    loop {
        let mut buffer = vec![0; query()?];
        match fill(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // It grew in between.
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}
