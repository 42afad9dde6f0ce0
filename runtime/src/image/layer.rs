//! Unpacking one layer, as root, from a tar that is not trusted.
//!
//! Nothing is made outside of the target: see `rootfs::tree`. A symlink may point anywhere, since
//! only the container follows it, and inside its root; an entry *below* a symlink goes where the
//! link leads inside the layer. Deleted files become overlayfs' whiteouts.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use godwit_types::Digest;
use rustix::{fs::FileType, io::Errno};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{
    compression,
    error::{LayerFault, TarFault},
    tar_reader::{Member, Members},
};
use crate::rootfs::{
    free,
    tree::{Attributes, Place, Symlinks, Tree, TreePath},
    xattr,
};

const MAX_ENTRIES: u64 = 2_000_000;
const MAX_DEPTH: usize = 256;
const WHITEOUT: &[u8] = b".wh.";
/// AUFS' own; but for one, they mean nothing to others.
const SPECIAL: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Unpacks the layer at `blob`, compressed or not, into the empty directory `target` and checks
/// that its tar has digest `diff_id`. `below` are the unpacked parents, bottom first: a directory
/// that the layer does not describe is made like theirs. Returns the bytes of its files.
pub(super) fn unpack(
    blob: &Path,
    target: &Path,
    diff_id: &Digest,
    below: &[PathBuf],
) -> Result<u64, LayerFault> {
    let read = |source| LayerFault::Tar(TarFault::Read { read: 0, source });
    let plain = compression::plain(File::open(blob).map_err(read)?).map_err(read)?;
    let mut members = Members::new(Hashed {
        inner: plain,
        hash: Sha256::new(),
    });

    let open = |source| io("open", ".", source);
    let mut unpacking = Unpacking {
        tree: Tree::open(target, Symlinks::InRoot).map_err(open)?,
        target: target.to_owned(),
        below: below
            .iter()
            .rev()
            .map(|path| Tree::open(path, Symlinks::InRoot))
            .collect::<Result<_, _>>()
            .map_err(open)?,
        buffer: vec![0; 128 << 10],
        bytes: 0,
    };
    unpacking.implied(&TreePath::default())?;
    let mut entries = 0;
    while let Some(member) = members.next().map_err(LayerFault::Tar)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(LayerFault::Entries { limit: MAX_ENTRIES });
        }
        unpacking.entry(member, &mut members)?;
    }
    let hashed = members.finish().map_err(LayerFault::Tar)?;
    let found = Digest::from_sha256(hashed.hash.finalize().into());
    if found != *diff_id {
        return Err(LayerFault::Digest { found });
    }
    let bytes = unpacking.bytes;
    unpacking
        .tree
        .finish()
        .map_err(|(path, source)| io("set the time of", &path.to_string_lossy(), source))?;
    Ok(bytes)
}

struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

struct Unpacking {
    tree: Tree,
    target: PathBuf,
    /// Top first.
    below: Vec<Tree>,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Unpacking {
    fn entry(
        &mut self,
        member: Member,
        members: &mut Members<impl Read>,
    ) -> Result<(), LayerFault> {
        let entry = String::from_utf8_lossy(&member.path).into_owned();
        let path = TreePath::parse(&member.path, MAX_DEPTH).map_err(|source| LayerFault::Path {
            entry: entry.clone(),
            source,
        })?;
        if let Some(done) = self.whiteout(&path, &entry)? {
            return Ok(done);
        }
        // Refused before anything is made.
        match member.kind {
            EntryType::Char => {
                return Err(LayerFault::Device {
                    entry,
                    kind: "character",
                });
            }
            EntryType::Block => {
                return Err(LayerFault::Device {
                    entry,
                    kind: "block",
                });
            }
            EntryType::Regular
            | EntryType::Continuous
            | EntryType::GNUSparse
            | EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link
            | EntryType::Fifo => {}
            kind => {
                let kind = char::from(kind.as_byte());
                return Err(LayerFault::Kind { entry, kind });
            }
        }
        if path.is_root() && member.kind != EntryType::Directory {
            return Err(LayerFault::Attribute {
                entry,
                what: "the root's path and is no directory",
            });
        }
        let attributes = attributes(&member, &entry)?;
        let place = self.place(&path, &entry)?;
        if member.kind == EntryType::Directory {
            if !path.is_root() {
                self.directory(&place, &entry)?;
            }
            return self
                .tree
                .dress_directory(&path, &place, attributes)
                .map_err(|source| io("set the attributes of", &entry, source));
        }

        // Before the old entry goes: the target may be that one.
        let target = match member.kind {
            EntryType::Link => Some(self.link_target(&member, &entry, &path)?),
            _ => None,
        };
        self.replace(&place, &entry)?;
        let kind = match member.kind {
            EntryType::Link => {
                let target = target.expect("it was looked up above");
                return place
                    .make_link(&target)
                    .map_err(|source| io("link", &entry, source));
            }
            EntryType::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(LayerFault::Attribute {
                        entry,
                        what: "no valid symlink target",
                    });
                }
                place.make_symlink(&member.link).map(|()| FileType::Symlink)
            }
            EntryType::Fifo => place.make_node(FileType::Fifo, 0).map(|()| FileType::Fifo),
            _ => {
                self.file(&member, members, &place, &entry)?;
                Ok(FileType::RegularFile)
            }
        };
        let kind = kind.map_err(|source| io("make", &entry, source))?;
        place
            .dress(kind, &attributes)
            .map_err(|source| io("set the attributes of", &entry, source))
    }

    /// Some: the entry was a mark and is dealt with.
    fn whiteout(&mut self, path: &TreePath, entry: &str) -> Result<Option<()>, LayerFault> {
        let Some(name) = path.name().map(|name| name.as_encoded_bytes().to_owned()) else {
            return Ok(None);
        };
        let make = |source| io("mark", entry, source);
        if name == OPAQUE {
            self.place(path, entry)?;
            let place = self.tree.place(&path.parent()).map_err(make)?;
            place.set_xattr(xattr::OPAQUE, b"y").map_err(make)?;
            return Ok(Some(()));
        }
        let special = path
            .as_path()
            .iter()
            .any(|part| part.as_encoded_bytes().starts_with(SPECIAL));
        if special {
            return Ok(Some(()));
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else {
            return Ok(None);
        };
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(LayerFault::Whiteout {
                entry: entry.to_owned(),
            });
        }
        let place = self.place(&path.sibling(hidden), entry)?;
        match place.kind().map_err(make)? {
            // Only what is below goes; what this layer itself brings stays.
            Some(FileType::Directory) => {
                place.set_xattr(xattr::OPAQUE, b"y").map_err(make)?;
            }
            Some(_) => {}
            None => place
                .make_node(FileType::CharacterDevice, 0)
                .map_err(make)?,
        }
        Ok(Some(()))
    }

    /// The entry's place; parents that the archive has no entry for are made.
    fn place(&mut self, path: &TreePath, entry: &str) -> Result<Place, LayerFault> {
        match self.tree.place(path) {
            Ok(place) => return Ok(place),
            Err(source) if missing(&source) => {}
            Err(source) => return Err(io("find the directory of", entry, source)),
        }
        let mut parents = Vec::new();
        let mut parent = path.parent();
        while !parent.is_root() {
            parents.push(parent.clone());
            parent = parent.parent();
        }
        for parent in parents.into_iter().rev() {
            match self.tree.directory(&parent) {
                Ok(_) => continue,
                Err(source) if missing(&source) => {}
                Err(source) => return Err(io("find the directory of", entry, source)),
            }
            let refuse = || LayerFault::Parent {
                entry: entry.to_owned(),
                parent: parent.as_path().to_string_lossy().into_owned(),
            };
            let place = self.tree.place(&parent).map_err(|_| refuse())?;
            match place.kind() {
                Ok(None) => {}
                Ok(Some(FileType::CharacterDevice)) => {}
                // A file, or a symlink that leads to nothing inside the layer.
                _ => return Err(refuse()),
            }
            self.directory(&place, entry)?;
            self.implied(&parent)?;
        }
        self.tree
            .place(path)
            .map_err(|source| io("find the directory of", entry, source))
    }

    /// Makes the directory, unless there is one.
    fn directory(&mut self, place: &Place, entry: &str) -> Result<(), LayerFault> {
        let failed = |source| io("make", entry, source);
        match place.kind().map_err(failed)? {
            Some(FileType::Directory) => return Ok(()),
            Some(_) => {
                let whiteout = place.is_whiteout().map_err(failed)?;
                place.clear().map_err(failed)?;
                place.make_directory().map_err(failed)?;
                if whiteout {
                    place.set_xattr(xattr::OPAQUE, b"y").map_err(failed)?;
                }
            }
            None => place.make_directory().map_err(failed)?,
        }
        self.tree.forget_parent();
        Ok(())
    }

    /// Gives a directory that has no entry of its own the mode and owner that it has below, for
    /// it is this layer's that the container will see.
    fn implied(&mut self, path: &TreePath) -> Result<(), LayerFault> {
        let shown = path.as_path().to_string_lossy().into_owned();
        let failed = |source| io("set the attributes of", &shown, source);
        let mut attributes = Attributes {
            mode: 0o755,
            ..Attributes::default()
        };
        for below in &mut self.below {
            let Ok(Some(stat)) = below.place(path).and_then(|place| place.stat()) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                attributes.mode = stat.st_mode & 0o7777;
                attributes.uid = stat.st_uid;
                attributes.gid = stat.st_gid;
                attributes.mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
            }
            // A whiteout or a file: there is no such directory below.
            break;
        }
        let place = self.tree.place(path).map_err(failed)?;
        self.tree
            .dress_directory(path, &place, attributes)
            .map_err(failed)
    }

    /// Makes room for an entry that comes a second time.
    fn replace(&mut self, place: &Place, entry: &str) -> Result<(), LayerFault> {
        match place.clear() {
            Ok(()) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(LayerFault::Replaces {
                    entry: entry.to_owned(),
                })
            }
            Err(source) => Err(io("replace", entry, source)),
        }
    }

    fn link_target(
        &mut self,
        member: &Member,
        entry: &str,
        path: &TreePath,
    ) -> Result<Place, LayerFault> {
        let refuse = || LayerFault::LinkTarget {
            entry: entry.to_owned(),
            target: String::from_utf8_lossy(&member.link).into_owned(),
        };
        let target = TreePath::parse(&member.link, MAX_DEPTH).map_err(|_| refuse())?;
        if target.is_root() || target == *path {
            return Err(refuse());
        }
        let place = self.tree.place(&target).map_err(|_| refuse())?;
        match place.kind() {
            Ok(Some(FileType::Directory) | None) | Err(_) => Err(refuse()),
            // The mark of a deleted file is no file.
            Ok(Some(FileType::CharacterDevice)) => Err(refuse()),
            Ok(Some(_)) => Ok(place),
        }
    }

    fn file(
        &mut self,
        member: &Member,
        members: &mut Members<impl Read>,
        place: &Place,
        entry: &str,
    ) -> Result<(), LayerFault> {
        let size = member.size;
        let no_space = |need, free| LayerFault::NoSpace {
            entry: entry.to_owned(),
            need,
            free,
        };
        let free =
            free(&self.target).map_err(|source| io("ask for the space for", entry, source))?;
        // A hole counts as well: a container that fills it would need the space.
        if size > free {
            return Err(no_space(size, free));
        }
        let file = place
            .make_file()
            .map_err(|source| io("make", entry, source))?;
        let whole = [(0, size)];
        for &(start, length) in member.runs.as_deref().unwrap_or(&whole) {
            let mut at = start;
            let end = start + length;
            while at < end {
                let want = self.buffer.len().min((end - at) as usize);
                let n = members
                    .read(&mut self.buffer[..want])
                    .map_err(LayerFault::Tar)?;
                if n == 0 {
                    return Err(LayerFault::Attribute {
                        entry: entry.to_owned(),
                        what: "less content than it announces",
                    });
                }
                file.write_all_at(&self.buffer[..n], at)
                    .map_err(|source| match source.kind() {
                        io::ErrorKind::StorageFull => no_space(end - at, 0),
                        _ => io("write", entry, source),
                    })?;
                at += n as u64;
            }
        }
        if member.runs.is_some() {
            file.set_len(size)
                .map_err(|source| io("set the length of", entry, source))?;
        }
        self.bytes += size;
        Ok(())
    }
}

fn attributes(member: &Member, entry: &str) -> Result<Attributes, LayerFault> {
    let owner = |id: u64| {
        // To the kernel, -1 means: leave as it is.
        u32::try_from(id)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| LayerFault::Attribute {
                entry: entry.to_owned(),
                what: "an owner that no system has",
            })
    };
    let mut xattrs = member.xattrs.clone();
    xattrs.retain(|(name, _)| is_kept(name));
    if xattrs.iter().any(|(name, _)| name.contains(&0)) {
        let what = "an extended attribute with a zero byte in its name";
        return Err(LayerFault::Attribute {
            entry: entry.to_owned(),
            what,
        });
    }
    Ok(Attributes {
        mode: member.mode,
        uid: owner(member.uid)?,
        gid: owner(member.gid)?,
        mtime: member.mtime,
        xattrs,
    })
}

/// Not `trusted`: with those an archive could talk to overlayfs. Nor labels of a security module,
/// which belong to the host where the archive was made.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || [xattr::CAPABILITY, xattr::ACCESS_ACL, xattr::DEFAULT_ACL].contains(&name)
}

/// The parent is not there, or no directory (a whiteout, perhaps).
fn missing(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR]
        .iter()
        .any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

fn io(step: &'static str, entry: &str, source: io::Error) -> LayerFault {
    LayerFault::Io {
        step,
        entry: entry.to_owned(),
        source,
    }
}
