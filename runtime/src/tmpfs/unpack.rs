//! Filling the new mount from an archive that came from a peer.

use std::{
    io::{self, Read},
    os::unix::fs::FileExt,
    path::Path,
};

use rustix::{
    fs::{FileType, makedev},
    io::Errno,
};
use tar::EntryType;

use super::{BUFFER, TmpfsError};
use crate::{
    image::tar_reader::{Member, Members},
    rootfs::tree::{Attributes, MAX_PATH, Place, Symlinks, Tree, TreePath},
};

const MAX_ENTRIES: u64 = 1_000_000;

pub(super) fn unpack(archive: impl Read, directory: &Path) -> Result<(), TmpfsError> {
    // A tmpfs is written from its root down, and never through a symlink.
    let tree = Tree::open(directory, Symlinks::Refused).map_err(|source| TmpfsError::Open {
        path: directory.to_owned(),
        source,
    })?;
    let mut members = Members::new(archive);
    let mut unpacking = Unpacking { tree };
    let mut entries = 0;
    while let Some(member) = members.next().map_err(TmpfsError::Archive)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(refused(&member, "there are more than a million"));
        }
        unpacking.entry(&member, &mut members)?;
    }
    // Reads the checksum of the last byte, too.
    members.finish().map_err(TmpfsError::Archive)?;
    unpacking
        .tree
        .finish()
        .map_err(|(path, source)| TmpfsError::Entry {
            step: "set the time of",
            entry: path.to_string_lossy().into_owned(),
            source,
        })
}

struct Unpacking {
    tree: Tree,
}

impl Unpacking {
    fn entry(
        &mut self,
        member: &Member,
        members: &mut Members<impl Read>,
    ) -> Result<(), TmpfsError> {
        let path = tree_path(member, &member.path)?;
        let attributes = attributes(member)?;
        let place = self
            .tree
            .place(&path)
            .map_err(|source| failed("find the directory of", member, source))?;
        if path.is_root() && member.kind != EntryType::Directory {
            return Err(refused(member, "it is the root and no directory"));
        }
        let made = |source| failed("make", member, source);
        let kind = match member.kind {
            EntryType::Directory => {
                if place.kind().map_err(made)? != Some(FileType::Directory) {
                    place
                        .clear()
                        .and_then(|()| place.make_directory())
                        .map_err(made)?;
                }
                return self
                    .tree
                    .dress_directory(&path, &place, attributes)
                    .map_err(|source| failed("set the attributes of", member, source));
            }
            EntryType::Link => {
                let target = tree_path(member, &member.link)?;
                let target = self
                    .tree
                    .place(&target)
                    .map_err(|source| failed("find the target of", member, source))?;
                if target.kind().map_err(made)? == Some(FileType::Directory) {
                    return Err(refused(member, "it is a link to a directory"));
                }
                // The first name has got the attributes.
                return match place.make_link(&target) {
                    Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
                        place.clear().and_then(|()| place.make_link(&target))
                    }
                    other => other,
                }
                .map_err(made);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                place.clear().map_err(made)?;
                file(&place, member, members)?;
                FileType::RegularFile
            }
            EntryType::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(refused(member, "it is a symlink without a valid target"));
                }
                place
                    .clear()
                    .and_then(|()| place.make_symlink(&member.link))
                    .map_err(made)?;
                FileType::Symlink
            }
            EntryType::Fifo => node(&place, FileType::Fifo, member)?,
            EntryType::Char => node(&place, FileType::CharacterDevice, member)?,
            EntryType::Block => node(&place, FileType::BlockDevice, member)?,
            _ => return Err(refused(member, "its kind is unknown")),
        };
        place
            .dress(kind, &attributes)
            .map_err(|source| failed("set the attributes of", member, source))
    }
}

fn node(place: &Place, kind: FileType, member: &Member) -> Result<FileType, TmpfsError> {
    let (major, minor) = member.device;
    place
        .clear()
        .and_then(|()| place.make_node(kind, makedev(major, minor)))
        .map(|()| kind)
        .map_err(|source| failed("make", member, source))
}

fn file(
    place: &Place,
    member: &Member,
    members: &mut Members<impl Read>,
) -> Result<(), TmpfsError> {
    let file = place
        .make_file()
        .map_err(|source| failed("make", member, source))?;
    let written = |source| failed("write", member, source);
    let whole = [(0, member.size)];
    let mut buffer = vec![0; BUFFER];
    for (mut at, length) in member.runs.as_deref().unwrap_or(&whole).iter().copied() {
        let mut left = length;
        while left > 0 {
            let want = buffer.len().min(left as usize);
            let n = members
                .read(&mut buffer[..want])
                .map_err(TmpfsError::Archive)?;
            if n == 0 {
                return Err(refused(member, "its content is shorter than its size"));
            }
            file.write_all_at(&buffer[..n], at).map_err(written)?;
            at += n as u64;
            left -= n as u64;
        }
    }
    file.set_len(member.size).map_err(written)
}

fn tree_path(member: &Member, bytes: &[u8]) -> Result<TreePath, TmpfsError> {
    TreePath::parse(bytes, MAX_PATH).map_err(|source| TmpfsError::Path {
        entry: shown(member),
        source,
    })
}

fn attributes(member: &Member) -> Result<Attributes, TmpfsError> {
    // To the kernel, -1 means: leave as it is.
    let id = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| refused(member, "its owner is no number of a user or group"))
    };
    Ok(Attributes {
        mode: member.mode,
        uid: id(member.uid)?,
        gid: id(member.gid)?,
        mtime: member.mtime,
        xattrs: Vec::new(),
    })
}

fn refused(member: &Member, what: &'static str) -> TmpfsError {
    TmpfsError::Refused {
        entry: shown(member),
        what,
    }
}

fn failed(step: &'static str, member: &Member, source: io::Error) -> TmpfsError {
    TmpfsError::Entry {
        step,
        entry: shown(member),
        source,
    }
}

fn shown(member: &Member) -> String {
    member.path.escape_ascii().to_string()
}
