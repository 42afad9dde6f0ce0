//! Tars that somebody else made, into a directory: the context of a build, and what `ADD` unpacks.
//! None of it is trusted; nothing is made outside of the target (`rootfs::tree`).

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::FileType;
use tar::{EntryType, Header};

use crate::{
    image::{
        TarFault, compression,
        tar_reader::{Member, Members},
    },
    rootfs::{
        PathFault, free,
        tree::{Attributes, Place, Symlinks, Tree, TreePath},
        xattr,
    },
};

const MAX_ENTRIES: u64 = 1_000_000;
const MAX_DEPTH: usize = 128;

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveFault {
    #[error("the archive could not be read")]
    Tar(#[source] TarFault),
    #[error("entry `{entry}` is refused")]
    Path {
        entry: String,
        #[source]
        source: PathFault,
    },
    #[error("entry `{entry}` is refused: {problem}")]
    Entry {
        entry: String,
        problem: &'static str,
    },
    #[error("it has more than {MAX_ENTRIES} entries")]
    Entries,
    #[error("no space for `{entry}`: it needs {need} bytes and {free} are free")]
    NoSpace { entry: String, need: u64, free: u64 },
    #[error(
        "it is compressed with {0}, which is not unpacked: compress it with gzip or zstd, or `COPY` it and unpack it in a `RUN`"
    )]
    Compression(&'static str),
    #[error("could not {step} `{entry}`")]
    Io {
        step: &'static str,
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error("interrupted")]
    Interrupted,
}

/// How an archive is unpacked.
pub struct Unpacking<'a> {
    /// Who owns everything; None: whom the archive names.
    pub owner: Option<(u32, u32)>,
    /// An entry below a symlink goes where that leads inside the root; false: it is refused.
    pub follow: bool,
    /// Below the root; must be a directory there. Empty: the root itself.
    pub dest: &'a str,
    pub go_on: &'a dyn Fn() -> bool,
}

/// Whether a file is an archive that `ADD` unpacks. One that is compressed in another way than we
/// know is refused: to copy it as it is would be a silent difference to other builders.
pub fn is_archive(path: &Path) -> Result<bool, ArchiveFault> {
    let failed = |source| ArchiveFault::Io {
        step: "read",
        entry: path.display().to_string(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    file.by_ref()
        .take(6)
        .read_to_end(&mut start)
        .map_err(failed)?;
    for (magic, name) in [(&b"\xfd7zXZ\0"[..], "xz"), (&b"BZh"[..], "bzip2")] {
        if start.starts_with(magic) {
            return Err(ArchiveFault::Compression(name));
        }
    }
    let file = File::open(path).map_err(failed)?;
    let Ok(mut plain) = compression::plain(file) else {
        return Ok(false);
    };
    let mut block = [0; 512];
    // What can't be read as compressed, or is shorter, is no archive.
    if plain.read_exact(&mut block).is_err() {
        return Ok(false);
    }
    let header = Header::from_byte_slice(&block);
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    Ok(header.cksum().is_ok_and(|said| u64::from(said) == sum) && block.iter().any(|b| *b != 0))
}

/// Unpacks an archive, compressed or not, below `root`.
pub fn unpack(input: impl Read, root: &Path, how: &Unpacking<'_>) -> Result<u64, ArchiveFault> {
    let broken = |source| ArchiveFault::Tar(TarFault::Read { read: 0, source });
    let mut members = Members::new(compression::plain(input).map_err(broken)?);
    let symlinks = if how.follow {
        Symlinks::InRoot
    } else {
        Symlinks::Refused
    };
    let tree = Tree::open(root, symlinks).map_err(|source| ArchiveFault::Io {
        step: "open",
        entry: ".".to_owned(),
        source,
    })?;
    let mut state = State {
        tree,
        root: root.to_owned(),
        how,
        buffer: vec![0; 128 << 10],
    };
    let mut entries = 0;
    while let Some(member) = members.next().map_err(ArchiveFault::Tar)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(ArchiveFault::Entries);
        }
        if !(how.go_on)() {
            return Err(ArchiveFault::Interrupted);
        }
        state.entry(&member, &mut members)?;
    }
    members.finish().map_err(ArchiveFault::Tar)?;
    state
        .tree
        .finish()
        .map_err(|(path, source)| ArchiveFault::Io {
            step: "set the time of",
            entry: path.display().to_string(),
            source,
        })?;
    Ok(entries)
}

struct State<'a> {
    tree: Tree,
    root: PathBuf,
    how: &'a Unpacking<'a>,
    buffer: Vec<u8>,
}

impl State<'_> {
    fn path(&self, bytes: &[u8], entry: &str) -> Result<TreePath, ArchiveFault> {
        let refuse = |source| ArchiveFault::Path {
            entry: entry.to_owned(),
            source,
        };
        let path = TreePath::parse(bytes, MAX_DEPTH).map_err(refuse)?;
        let mut whole = self.how.dest.trim_matches('/').as_bytes().to_vec();
        whole.push(b'/');
        whole.extend(path.as_path().as_os_str().as_encoded_bytes());
        let whole = whole.strip_prefix(b"/").unwrap_or(&whole);
        TreePath::parse(whole, 2 * MAX_DEPTH).map_err(refuse)
    }

    fn entry(
        &mut self,
        member: &Member,
        members: &mut Members<impl Read>,
    ) -> Result<(), ArchiveFault> {
        let entry = String::from_utf8_lossy(&member.path).into_owned();
        let refuse = |problem| ArchiveFault::Entry {
            entry: entry.clone(),
            problem,
        };
        let io = |step| {
            let entry = entry.clone();
            move |source| ArchiveFault::Io {
                step,
                entry,
                source,
            }
        };
        let own =
            TreePath::parse(&member.path, MAX_DEPTH).map_err(|source| ArchiveFault::Path {
                entry: entry.clone(),
                source,
            })?;
        // The directory it is unpacked into stays what it is.
        if own.is_root() {
            return match member.kind {
                EntryType::Directory => Ok(()),
                _ => Err(refuse("it has the root's path and is no directory")),
            };
        }
        let attributes = self.attributes(member).map_err(refuse)?;
        let path = self.path(&member.path, &entry)?;
        let kind = match member.kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                FileType::RegularFile
            }
            EntryType::Directory => FileType::Directory,
            EntryType::Symlink => FileType::Symlink,
            EntryType::Fifo => FileType::Fifo,
            EntryType::Link => FileType::Unknown,
            EntryType::Char | EntryType::Block => return Err(refuse("it is a device")),
            _ => return Err(refuse("it is of a type that is not supported")),
        };
        let place = self.place(&path).map_err(|source| ArchiveFault::Io {
            step: "find the directory of",
            entry: entry.clone(),
            source,
        })?;
        if kind == FileType::Directory {
            if place.kind().map_err(io("look at"))? != Some(FileType::Directory) {
                place.clear().map_err(io("replace"))?;
                place.make_directory().map_err(io("make"))?;
                self.tree.forget_parent();
            }
            return self
                .tree
                .dress_directory(&path, &place, attributes)
                .map_err(io("set the attributes of"));
        }
        // Before the old entry goes: the target may be that one.
        let mut target = None;
        if kind == FileType::Unknown {
            let path = self.path(&member.link, &entry)?;
            let found = self.tree.place(&path).map_err(io("find the target of"))?;
            match found.kind().map_err(io("look at"))? {
                Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
                _ => return Err(refuse("its hard link's target is no file in the archive")),
            }
            target = Some(found);
        }
        match place.kind().map_err(io("look at"))? {
            Some(FileType::Directory) => {
                return Err(refuse("there is a directory of that name"));
            }
            Some(_) => place.clear().map_err(io("replace"))?,
            None => {}
        }
        if let Some(target) = target {
            return place.make_link(&target).map_err(io("link"));
        }
        match kind {
            FileType::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(refuse("it has no valid target"));
                }
                place.make_symlink(&member.link).map_err(io("make"))?;
            }
            FileType::Fifo => place.make_node(kind, 0).map_err(io("make"))?,
            _ => self.file(member, members, &place, &entry)?,
        }
        place
            .dress(kind, &attributes)
            .map_err(io("set the attributes of"))
    }

    fn attributes(&self, member: &Member) -> Result<Attributes, &'static str> {
        let (uid, gid) = match self.how.owner {
            Some(owner) => owner,
            None => {
                let id = |id: u64| {
                    u32::try_from(id)
                        .ok()
                        .filter(|id| *id != u32::MAX)
                        .ok_or("it has an owner that no system has")
                };
                (id(member.uid)?, id(member.gid)?)
            }
        };
        let mut xattrs = member.xattrs.clone();
        xattrs.retain(|(name, _)| {
            (name.starts_with(b"user.") || name == xattr::CAPABILITY) && !name.contains(&0)
        });
        Ok(Attributes {
            mode: member.mode,
            uid,
            gid,
            mtime: member.mtime,
            xattrs,
        })
    }

    /// The entry's place; parents without an entry of their own are made.
    fn place(&mut self, path: &TreePath) -> io::Result<Place> {
        match self.tree.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let owner = self.how.owner.unwrap_or((0, 0));
        super::copy::make_directories(&mut self.tree, &path.parent(), owner)?;
        self.tree.place(path)
    }

    fn file(
        &mut self,
        member: &Member,
        members: &mut Members<impl Read>,
        place: &Place,
        entry: &str,
    ) -> Result<(), ArchiveFault> {
        let io = |step| {
            let entry = entry.to_owned();
            move |source| ArchiveFault::Io {
                step,
                entry,
                source,
            }
        };
        let room = free(&self.root).map_err(io("ask for the space for"))?;
        if member.size > room {
            return Err(ArchiveFault::NoSpace {
                entry: entry.to_owned(),
                need: member.size,
                free: room,
            });
        }
        let file = place.make_file().map_err(io("make"))?;
        let whole = [(0, member.size)];
        for &(start, length) in member.runs.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (start, start + length);
            while at < end {
                let want = self.buffer.len().min((end - at) as usize);
                let n = members
                    .read(&mut self.buffer[..want])
                    .map_err(ArchiveFault::Tar)?;
                if n == 0 {
                    return Err(ArchiveFault::Entry {
                        entry: entry.to_owned(),
                        problem: "it has less content than it announces",
                    });
                }
                file.write_all_at(&self.buffer[..n], at)
                    .map_err(io("write"))?;
                at += n as u64;
            }
        }
        if member.runs.is_some() {
            file.set_len(member.size).map_err(io("set the length of"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn archives_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let is = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            is_archive(&path)
        };
        let mut header = Header::new_ustar();
        header.set_path("a").unwrap();
        header.set_size(0);
        header.set_cksum();
        let tar = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        assert!(is(&tar).unwrap() && is(&gzip.finish().unwrap()).unwrap());
        assert!(is(&zstd::encode_all(tar.as_slice(), 1).unwrap()).unwrap());
        for other in [
            &b""[..],
            b"text",
            &[0; 2048],
            b"\x1f\x8bnot gzip",
            &tar[..400],
        ] {
            assert!(!is(other).unwrap());
        }
        for packed in [&b"\xfd7zXZ\0...."[..], b"BZh91AY"] {
            assert!(matches!(is(packed), Err(ArchiveFault::Compression(_))));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let how = Unpacking {
                owner: Some((0, 0)),
                follow: false,
                dest: "",
                go_on: &|| true,
            };
            let _ = unpack(bytes.as_slice(), dir.path(), &how);
        }
    }
}
