//! Filling an empty directory from the stream.

use std::{
    fs::{DirBuilder, File},
    io::{self, BufReader, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, makedev},
    io::Errno,
};

use super::{
    super::{
        space,
        tree::{MAX_PATH, Place, Symlinks, Tree, TreePath, shown},
        xattr,
    },
    DiffError,
    format::{Decoder, Entry, Kind, MAX_ENTRIES},
};

/// What is accepted beyond a file tree without special files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Devices, which a container with CAP_MKNOD may have made. Whiteouts always pass.
    pub allow_devices: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnpackReport {
    /// The root, and all that is below it.
    pub entries: u64,
    /// Content of files, holes left out.
    pub bytes: u64,
}

/// [`unpack_with`] for a peer that is known: devices are allowed.
pub fn unpack(input: impl Read, upper: &Path) -> Result<UnpackReport, DiffError> {
    unpack_with(
        input,
        upper,
        Rules {
            allow_devices: true,
        },
    )
}

/// Fills `upper`, which is empty or not there, from a stream that ends where the diff ends.
/// Nothing is made outside of it, whatever the stream says. After an error `upper` is incomplete
/// and is the caller's to remove.
pub fn unpack_with(
    input: impl Read,
    upper: &Path,
    rules: Rules,
) -> Result<UnpackReport, DiffError> {
    let open = |source| DiffError::Open {
        path: upper.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(upper) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(open(source)),
        _ => {}
    }
    if std::fs::read_dir(upper).map_err(open)?.next().is_some() {
        return Err(DiffError::NotEmpty {
            path: upper.to_owned(),
        });
    }
    let mut unpacking = Unpacking {
        input: Decoder::new(BufReader::with_capacity(256 << 10, input))?,
        tree: Tree::open(upper, Symlinks::Refused).map_err(open)?,
        upper: upper.to_owned(),
        rules,
        buffer: vec![0; 256 << 10],
        report: UnpackReport::default(),
    };
    while let Some(entry) = unpacking.input.entry()? {
        unpacking.report.entries += 1;
        if unpacking.report.entries > MAX_ENTRIES {
            return Err(DiffError::Limit {
                what: "number of entries",
                found: unpacking.report.entries,
                limit: MAX_ENTRIES,
            });
        }
        unpacking.entry(entry)?;
    }
    if unpacking.report.entries == 0 {
        return Err(unpacking.input.malformed("there is no root"));
    }
    unpacking
        .input
        .end(unpacking.report.entries, unpacking.report.bytes)?;
    unpacking
        .tree
        .finish()
        .map_err(|(path, source)| DiffError::Entry {
            step: "set the attributes of",
            path,
            source,
        })?;
    Ok(unpacking.report)
}

struct Unpacking<R> {
    input: Decoder<R>,
    tree: Tree,
    upper: PathBuf,
    rules: Rules,
    buffer: Vec<u8>,
    report: UnpackReport,
}

impl<R: Read> Unpacking<R> {
    fn entry(&mut self, entry: Entry) -> Result<(), DiffError> {
        let Entry {
            path: bytes,
            attributes,
            kind,
        } = entry;
        let path = self.path(&bytes)?;
        let is_first = self.report.entries == 1;
        if path.is_root() != is_first || (is_first && kind != Kind::Directory) {
            return Err(self
                .input
                .malformed("the first entry, and only it, is the root"));
        }
        if let Some((name, _)) = attributes.xattrs.iter().find(|(name, _)| !is_carried(name)) {
            return Err(DiffError::Xattr {
                path: shown(&bytes),
                name: name.escape_ascii().to_string(),
            });
        }
        let place = self
            .tree
            .place(&path)
            .map_err(|source| match source.raw_os_error() {
                Some(errno) if leads_astray(errno) => DiffError::Through {
                    path: shown(&bytes),
                },
                _ => failed("find the directory of", &bytes, source),
            })?;

        let node = |kind, device| {
            let made = place.make_node(kind, device);
            made.map(|()| kind)
                .map_err(|source| failed("make", &bytes, source))
        };
        let file_type = match &kind {
            Kind::File { size } => {
                self.file(&place, &bytes, *size)?;
                FileType::RegularFile
            }
            Kind::Directory if path.is_root() => FileType::Directory,
            Kind::Directory => {
                place
                    .make_directory()
                    .map_err(|source| failed("make", &bytes, source))?;
                FileType::Directory
            }
            Kind::Symlink { target } => {
                place
                    .make_symlink(target)
                    .map_err(|source| failed("make", &bytes, source))?;
                FileType::Symlink
            }
            // The first name has got the attributes.
            Kind::Link { target } => return self.link(&place, &bytes, target),
            Kind::Fifo => node(FileType::Fifo, 0)?,
            Kind::Socket => node(FileType::Socket, 0)?,
            Kind::Character { major: 0, minor: 0 } => node(FileType::CharacterDevice, 0)?,
            Kind::Character { .. } | Kind::Block { .. } if !self.rules.allow_devices => {
                return Err(DiffError::Device {
                    path: shown(&bytes),
                });
            }
            Kind::Character { major, minor } => {
                node(FileType::CharacterDevice, makedev(*major, *minor))?
            }
            Kind::Block { major, minor } => node(FileType::BlockDevice, makedev(*major, *minor))?,
        };
        if file_type == FileType::Directory {
            self.tree.dress_directory(&path, &place, attributes)
        } else {
            place.dress(file_type, &attributes)
        }
        .map_err(|source| failed("set the attributes of", &bytes, source))
    }

    fn path(&self, bytes: &[u8]) -> Result<TreePath, DiffError> {
        let path = TreePath::parse(bytes, MAX_PATH).map_err(|source| DiffError::Path {
            path: shown(bytes),
            source,
        })?;
        // One spelling per path: `a//b` and `./a/b` were not written by `pack`.
        if path.as_path().as_os_str().as_bytes() != bytes {
            return Err(self.input.malformed("path is not in its shortest form"));
        }
        Ok(path)
    }

    fn file(&mut self, place: &Place, bytes: &[u8], size: u64) -> Result<(), DiffError> {
        let file = place
            .make_file()
            .map_err(|source| failed("make", bytes, source))?;
        let mut from = 0;
        while let Some((offset, length)) = self.input.run(from, size)? {
            let free = space::free(&self.upper)
                .map_err(|source| failed("ask for the free space for", bytes, source))?;
            if length > free {
                return Err(DiffError::NoSpace {
                    path: shown(bytes),
                    need: length,
                    free,
                });
            }
            self.run(&file, bytes, offset, length)?;
            from = offset + length;
            self.report.bytes += length;
        }
        file.set_len(size)
            .map_err(|source| failed("set the length of", bytes, source))
    }

    fn run(&mut self, file: &File, bytes: &[u8], at: u64, length: u64) -> Result<(), DiffError> {
        let mut done = 0;
        while done < length {
            let want = self.buffer.len().min((length - done) as usize);
            let buffer = &mut self.buffer[..want];
            self.input.data(buffer)?;
            file.write_all_at(buffer, at + done)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        DiffError::NoSpace {
                            path: shown(bytes),
                            need: length - done,
                            free: space::free(&self.upper).unwrap_or(0),
                        }
                    }
                    _ => failed("write", bytes, source),
                })?;
            done += want as u64;
        }
        Ok(())
    }

    fn link(&mut self, place: &Place, bytes: &[u8], target: &[u8]) -> Result<(), DiffError> {
        let missing = || DiffError::LinkTarget {
            path: shown(bytes),
            target: shown(target),
        };
        let target = self.path(target)?;
        let target = self.tree.place(&target).map_err(|_| missing())?;
        match target.kind() {
            Ok(Some(FileType::Directory) | None) | Err(_) => return Err(missing()),
            Ok(Some(_)) => {}
        }
        place
            .make_link(&target)
            .map_err(|source| failed("link", bytes, source))
    }
}

/// The errno of a parent that is a symlink or no directory.
fn leads_astray(errno: i32) -> bool {
    [Errno::LOOP, Errno::NOTDIR, Errno::XDEV]
        .iter()
        .any(|e| e.raw_os_error() == errno)
}

fn failed(step: &'static str, bytes: &[u8], source: io::Error) -> DiffError {
    let path = shown(bytes);
    match source.kind() {
        io::ErrorKind::AlreadyExists => DiffError::Twice { path },
        _ => DiffError::Entry { step, path, source },
    }
}

/// Extended attributes that mean the same on another host. `trusted.overlay.origin` does not: it
/// is a file handle of this host's lower layer. Nor do the labels of a security module.
pub(super) fn is_carried(name: &[u8]) -> bool {
    match name {
        b"trusted.overlay.origin" => false,
        xattr::CAPABILITY | xattr::ACCESS_ACL | xattr::DEFAULT_ACL => true,
        _ => name.starts_with(b"user.") || name.starts_with(b"trusted."),
    }
}
