//! An archive's members, spooled to a directory under numbers: no name from outside becomes a
//! path here.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use godwit_types::Digest;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{
    compression,
    error::{ImageError, TarFault},
    tar_reader::{Member, Members},
};
use crate::rootfs::{
    free,
    tree::{MAX_PATH, PathFault, TreePath},
};

/// Manifests, configurations, indexes.
pub(super) const MAX_DOCUMENT: u64 = 4 << 20;
const MAX_MEMBERS: u64 = 65_536;
const MAX_DEPTH: usize = 16;
/// Symlinks to symlinks.
const MAX_HOPS: usize = 4;

#[derive(Debug)]
pub(super) struct Blob {
    pub path: PathBuf,
    pub size: u64,
    pub digest: Digest,
}

enum Spooled {
    Blob(Blob),
    /// The path of another member.
    Alias(String),
}

pub(super) struct Spool {
    dir: PathBuf,
    members: HashMap<String, Spooled>,
    truncated: bool,
}

impl Spool {
    /// Reads the archive to its end.
    pub(super) fn fill(archive: impl Read, dir: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Archive(TarFault::Read { read: 0, source });
        let mut members = Members::new(compression::plain(archive).map_err(read)?);
        let mut spool = Self {
            dir: dir.to_owned(),
            members: HashMap::new(),
            truncated: false,
        };
        let mut count = 0;
        while let Some(member) = members.next().map_err(ImageError::Archive)? {
            count += 1;
            if count > MAX_MEMBERS {
                return Err(ImageError::Limit {
                    what: "a number of members of".to_owned(),
                    found: count,
                    limit: MAX_MEMBERS,
                });
            }
            spool.member(&member, &mut members, count)?;
        }
        // The documents tell whether something is missing; some tools write no end marker.
        spool.truncated = !members.marked;
        if spool.members.is_empty() {
            let found = if spool.truncated {
                "empty or truncated"
            } else {
                "without any file"
            };
            return Err(ImageError::NotAnImage { found });
        }
        members.finish().map_err(ImageError::Archive)?;
        Ok(spool)
    }

    fn member(
        &mut self,
        member: &Member,
        members: &mut Members<impl Read>,
        number: u64,
    ) -> Result<(), ImageError> {
        let shown = String::from_utf8_lossy(&member.path).into_owned();
        let path =
            TreePath::parse(&member.path, MAX_DEPTH).map_err(|source| ImageError::MemberPath {
                member: shown.clone(),
                source,
            })?;
        let refuse = |kind| {
            Err(ImageError::MemberKind {
                member: shown.clone(),
                kind,
            })
        };
        let spooled = match member.kind {
            EntryType::Directory => return Ok(()),
            EntryType::Regular | EntryType::Continuous => {
                Spooled::Blob(self.blob(member, members, number, &shown)?)
            }
            EntryType::Symlink => Spooled::Alias(link(path.parent().as_path(), member, &shown)?),
            EntryType::Link => Spooled::Alias(link(Path::new(""), member, &shown)?),
            EntryType::Char | EntryType::Block => return refuse("a device"),
            EntryType::Fifo => return refuse("a fifo"),
            EntryType::GNUSparse => return refuse("a sparse file"),
            _ => return refuse("of an unknown type"),
        };
        let Some(name) = path.as_path().to_str() else {
            return refuse("named by something that is not UTF-8");
        };
        match self.members.insert(name.to_owned(), spooled) {
            None => Ok(()),
            Some(_) => Err(ImageError::MemberTwice { member: shown }),
        }
    }

    fn blob(
        &self,
        member: &Member,
        members: &mut Members<impl Read>,
        number: u64,
        shown: &str,
    ) -> Result<Blob, ImageError> {
        let path = self.dir.join(number.to_string());
        let io = |step| {
            let path = path.clone();
            move |source| ImageError::Io { step, path, source }
        };
        let free = free(&self.dir).map_err(io("ask for the free space of"))?;
        let no_space = |need, free| ImageError::NoSpace {
            what: shown.to_owned(),
            path: self.dir.clone(),
            need,
            free,
        };
        if member.size > free {
            return Err(no_space(member.size, free));
        }
        let mut file = File::create_new(&path).map_err(io("make"))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = members.read(&mut buffer).map_err(ImageError::Archive)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            file.write_all(&buffer[..n])
                .map_err(|source| match source.kind() {
                    std::io::ErrorKind::StorageFull => no_space(member.size, 0),
                    _ => io("write")(source),
                })?;
        }
        Ok(Blob {
            path,
            size: member.size,
            digest: Digest::from_sha256(hash.finalize().into()),
        })
    }

    pub(super) fn has(&self, member: &str) -> bool {
        self.find(member).is_some()
    }

    fn find(&self, member: &str) -> Option<&Blob> {
        let path = TreePath::parse(member.as_bytes(), MAX_DEPTH).ok()?;
        let mut name = path.as_path().to_str()?;
        for _ in 0..=MAX_HOPS {
            match self.members.get(name)? {
                Spooled::Blob(blob) => return Some(blob),
                Spooled::Alias(other) => name = other,
            }
        }
        None
    }

    /// The member that the document `wanted_by` names.
    pub(super) fn get(&self, member: &str, wanted_by: &str) -> Result<&Blob, ImageError> {
        self.find(member).ok_or_else(|| ImageError::Missing {
            member: member.to_owned(),
            wanted_by: wanted_by.to_owned(),
            truncated: self.truncated,
        })
    }

    /// What to say when there is no document that makes the archive an image.
    pub(super) fn not_an_image(&self) -> ImageError {
        let found = if self.truncated {
            "truncated or something else"
        } else {
            "something else"
        };
        ImageError::NotAnImage { found }
    }
}

impl Blob {
    /// The whole of a small member; `name` is for messages.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        if self.size > MAX_DOCUMENT {
            return Err(ImageError::Limit {
                what: format!("a `{name}` of"),
                found: self.size,
                limit: MAX_DOCUMENT,
            });
        }
        std::fs::read(&self.path).map_err(|source| ImageError::Io {
            step: "read",
            path: self.path.clone(),
            source,
        })
    }

    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, ImageError> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|source| ImageError::Json {
            document: name.to_owned(),
            source,
        })
    }
}

/// A link's target as a member's path. `docker save` once wrote layers that images share as
/// `../<id>/layer.tar`; nothing more than this is understood.
fn link(from: &Path, member: &Member, shown: &str) -> Result<String, ImageError> {
    let refuse = || ImageError::MemberLink {
        member: shown.to_owned(),
        target: String::from_utf8_lossy(&member.link).into_owned(),
    };
    let mut base = from.to_owned();
    let mut rest = member.link.as_slice();
    while let Some(up) = rest.strip_prefix(b"../") {
        if !base.pop() {
            return Err(refuse());
        }
        rest = up;
    }
    // `..` further in, absolute, too long: no.
    let rest = TreePath::parse(rest, MAX_DEPTH).map_err(|_: PathFault| refuse())?;
    if rest.is_root() || member.link.len() > MAX_PATH {
        return Err(refuse());
    }
    base.join(rest.as_path())
        .to_str()
        .map(str::to_owned)
        .ok_or_else(refuse)
}
