//! Out of a container.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Dir, FileType, OFlags, Stat, fstat, major, minor, readlinkat};
use tar::{Builder, EntryType, Header};

use super::{DEPTH, open_below, open_dir, resolve};

/// Writes what `path` leads to as a tar whose entries begin with `name`. Sockets are left out:
/// nothing could be done with them.
pub fn pack(root: &Path, path: &str, name: &str, to: impl Write) -> io::Result<()> {
    let top = resolve(root, path)?;
    let mut archive = Builder::new(to);
    entry(&mut archive, top, Path::new(name), 0)?;
    archive.into_inner()?.flush()
}

/// `at`: opened as a path only.
fn entry<W: Write>(
    archive: &mut Builder<W>,
    at: OwnedFd,
    name: &Path,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH {
        let text = format!("`{}` is deeper than {DEPTH} directories", name.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let stat = fstat(&at)?;
    let mut header = header(&stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, name, io::empty())?;
            let dir = open_dir(&at)?;
            let mut names = Vec::new();
            for found in Dir::read_from(&dir)? {
                let found = found?;
                let bytes = found.file_name().to_bytes();
                if !matches!(bytes, b"." | b"..") {
                    names.push(OsStr::from_bytes(bytes).to_owned());
                }
            }
            names.sort();
            for below in names {
                match open_below(dir.as_fd(), &below, OFlags::PATH) {
                    Ok(at) => entry(archive, at, &name.join(&below), depth + 1)?,
                    // It went away meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            let file = reopen(at.as_fd())?;
            // As long as it was said to be, however it grows or shrinks meanwhile.
            let content = file.take(size).chain(io::repeat(0)).take(size);
            archive.append_data(&mut header, name, content)
        }
        FileType::Symlink => {
            header.set_entry_type(EntryType::Symlink);
            let target = readlinkat(&at, "", Vec::new())?;
            let target = PathBuf::from(OsStr::from_bytes(target.as_bytes()));
            archive.append_link(&mut header, name, target)
        }
        FileType::Fifo => {
            header.set_entry_type(EntryType::Fifo);
            archive.append_data(&mut header, name, io::empty())
        }
        kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
            header.set_entry_type(match kind {
                FileType::BlockDevice => EntryType::Block,
                _ => EntryType::Char,
            });
            header.set_device_major(major(stat.st_rdev))?;
            header.set_device_minor(minor(stat.st_rdev))?;
            archive.append_data(&mut header, name, io::empty())
        }
        _ => Ok(()),
    }
}

/// The same file, to be read: whatever has its name now.
fn reopen(at: BorrowedFd<'_>) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", at.as_raw_fd()))
}

fn header(stat: &Stat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}
