//! The stream's layout, version 2. Integers are little-endian; `bytes16` is a u16 length and as
//! many bytes.
//!
//! ```text
//! stream  = "godwitwl" version:u32 base[32] (entry | remove | keep)* end
//! base    = the checksum that ended the stream before this one; zeros: against nothing
//! entry   = kind:u8 path:bytes16 mode:u16 uid:u32 gid:u32 seconds:i64 nanoseconds:u32
//!           count:u16 (name:bytes16 value:bytes16)*count body
//! body    = 1 file        size:u64 (offset:u64 length:u64 data)* size:u64 0:u64
//!           2 directory
//!           3 symlink     target:bytes16
//!           4 hard link   target:bytes16, the path of an earlier entry; attributes are that one's
//!           5 fifo
//!           6 socket
//!           7 character device   major:u32 minor:u32   (0, 0: a whiteout)
//!           8 block device       major:u32 minor:u32
//!           9 patch       size:u64 from:u32 (offset:u64 length:u64 data)* size:u64 0:u64
//! remove  = 16:u8 path:bytes16           an entry, or a directory with nothing in it
//! keep    = 17:u8 path:bytes16           a file, put aside: the first is number 1
//! end     = 0:u8 entries:u64 bytes:u64 blake3[32] of all before these 32 bytes
//! ```
//!
//! Against nothing, the first entry is the layer's root, a directory with an empty path, and
//! there are no patches, removes and keeps. Against a base, an entry takes the place of what was
//! there, and a directory keeps what is in it. A patch changes the file that is there (`from` 0)
//! or one that was kept; a length with its highest bit set is a hole and no data follows.
//!
//! A directory comes before what is in it. Paths are relative, parted by `/`, without `.` and `..`. Runs of a file come in
//! order and don't overlap; what is between them is a hole; a run of length 0 at `size` ends them.
//! `entries` counts removes and keeps too, and `bytes` is the sum of the runs of data.

use std::io::{self, Read, Write};

use super::{super::tree::Attributes, DiffError, Mark};

pub(super) const MAGIC: [u8; 8] = *b"godwitwl";
pub(super) const VERSION: u32 = 2;

pub(super) const MAX_ENTRIES: u64 = 10_000_000;
/// Extended attributes of one entry, and the bytes of one value (the kernel's own bound).
pub(super) const MAX_XATTRS: usize = 256;
pub(super) const MAX_XATTR_NAME: usize = 255;
pub(super) const MAX_XATTR_VALUE: usize = u16::MAX as usize;
/// The kernel's bound on a symlink's content.
pub(super) const MAX_TARGET: usize = 4095;
/// Marks the length of a hole.
const HOLE: u64 = 1 << 63;
const REMOVE: u8 = 16;
const KEEP: u8 = 17;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File { size: u64 },
    Directory,
    Symlink { target: Vec<u8> },
    Link { target: Vec<u8> },
    Fifo,
    Socket,
    Character { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Patch { size: u64, from: u32 },
}

/// One thing that a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Entry(Entry),
    Remove(Vec<u8>),
    Keep(Vec<u8>),
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub offset: u64,
    pub length: u64,
    pub is_hole: bool,
}

/// An entry without a file's runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: Vec<u8>,
    pub attributes: Attributes,
    pub kind: Kind,
}

pub(super) struct Encoder<W> {
    out: W,
    hash: blake3::Hasher,
    written: u64,
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(out: W, base: Mark) -> Result<Self, DiffError> {
        let mut encoder = Self {
            out,
            hash: blake3::Hasher::new(),
            written: 0,
        };
        encoder.put(&MAGIC)?;
        encoder.put(&VERSION.to_le_bytes())?;
        encoder.put(&base.0)?;
        Ok(encoder)
    }

    /// Lengths were checked by the caller.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<(), DiffError> {
        let mut head = Vec::with_capacity(128 + entry.path.len());
        head.push(match entry.kind {
            Kind::File { .. } => 1,
            Kind::Directory => 2,
            Kind::Symlink { .. } => 3,
            Kind::Link { .. } => 4,
            Kind::Fifo => 5,
            Kind::Socket => 6,
            Kind::Character { .. } => 7,
            Kind::Block { .. } => 8,
            Kind::Patch { .. } => 9,
        });
        let attributes = &entry.attributes;
        bytes16(&mut head, &entry.path);
        head.extend(((attributes.mode & 0o7777) as u16).to_le_bytes());
        head.extend(attributes.uid.to_le_bytes());
        head.extend(attributes.gid.to_le_bytes());
        head.extend(attributes.mtime.0.to_le_bytes());
        head.extend(attributes.mtime.1.to_le_bytes());
        head.extend((attributes.xattrs.len() as u16).to_le_bytes());
        for (name, value) in &attributes.xattrs {
            bytes16(&mut head, name);
            bytes16(&mut head, value);
        }
        match &entry.kind {
            Kind::File { size } => head.extend(size.to_le_bytes()),
            Kind::Symlink { target } | Kind::Link { target } => bytes16(&mut head, target),
            Kind::Character { major, minor } | Kind::Block { major, minor } => {
                head.extend(major.to_le_bytes());
                head.extend(minor.to_le_bytes());
            }
            Kind::Patch { size, from } => {
                head.extend(size.to_le_bytes());
                head.extend(from.to_le_bytes());
            }
            Kind::Directory | Kind::Fifo | Kind::Socket => {}
        }
        self.put(&head)
    }

    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), DiffError> {
        self.path(REMOVE, path)
    }

    pub(super) fn keep(&mut self, path: &[u8]) -> Result<(), DiffError> {
        self.path(KEEP, path)
    }

    fn path(&mut self, kind: u8, path: &[u8]) -> Result<(), DiffError> {
        let mut head = vec![kind];
        bytes16(&mut head, path);
        self.put(&head)
    }

    /// Of a patch: nothing but zeros, and no space.
    pub(super) fn hole(&mut self, offset: u64, length: u64) -> Result<(), DiffError> {
        self.run(offset, length | HOLE)
    }

    /// Announces `length` bytes of [`Encoder::data`]; length 0 at the file's size ends a file.
    pub(super) fn run(&mut self, offset: u64, length: u64) -> Result<(), DiffError> {
        self.put(&offset.to_le_bytes())?;
        self.put(&length.to_le_bytes())
    }

    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<(), DiffError> {
        self.put(bytes)
    }

    /// Answers the checksum: what the next stream is against.
    pub(super) fn end(mut self, entries: u64, bytes: u64) -> Result<Mark, DiffError> {
        self.put(&[0])?;
        self.put(&entries.to_le_bytes())?;
        self.put(&bytes.to_le_bytes())?;
        let hash = *self.hash.finalize().as_bytes();
        self.put(&hash)?;
        let written = self.written;
        self.out
            .flush()
            .map_err(|source| DiffError::Write { written, source })?;
        Ok(Mark(hash))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), DiffError> {
        self.hash.update(bytes);
        let written = self.written;
        self.out
            .write_all(bytes)
            .map_err(|source| DiffError::Write { written, source })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn bytes16(head: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("lengths were checked");
    head.extend(len.to_le_bytes());
    head.extend(bytes);
}

pub(super) struct Decoder<R> {
    /// What the stream is against.
    pub base: Mark,
    input: R,
    hash: blake3::Hasher,
    read: u64,
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(input: R) -> Result<Self, DiffError> {
        let mut decoder = Self {
            base: Mark::NOTHING,
            input,
            hash: blake3::Hasher::new(),
            read: 0,
        };
        let magic = decoder.array::<8>("the header")?;
        if magic != MAGIC {
            return Err(DiffError::Magic);
        }
        match decoder.u32("the header")? {
            VERSION => {
                decoder.base = Mark(decoder.array("the header")?);
                Ok(decoder)
            }
            found => Err(DiffError::Version {
                found,
                known: VERSION,
            }),
        }
    }

    /// None: the end follows, to be read by [`Decoder::end`].
    pub(super) fn item(&mut self) -> Result<Option<Item>, DiffError> {
        const WITHIN: &str = "an entry";
        let [kind] = self.array("the list of entries")?;
        if kind == 0 {
            return Ok(None);
        }
        let path = self.bytes16("path", super::super::tree::MAX_PATH)?;
        match kind {
            REMOVE => return Ok(Some(Item::Remove(path))),
            KEEP => return Ok(Some(Item::Keep(path))),
            _ => {}
        }
        let mode = u16::from_le_bytes(self.array(WITHIN)?).into();
        let (uid, gid) = (self.u32(WITHIN)?, self.u32(WITHIN)?);
        let mtime = (i64::from_le_bytes(self.array(WITHIN)?), self.u32(WITHIN)?);
        if mode > 0o7777 {
            return Err(self.malformed("mode has unknown bits"));
        }
        // To the kernel, -1 means: leave as it is.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(self.malformed("owner is -1"));
        }
        // So would the values beyond that mean "now" and "leave".
        if mtime.1 >= 1_000_000_000 {
            return Err(self.malformed("nanoseconds are a second or more"));
        }
        let count = u16::from_le_bytes(self.array(WITHIN)?) as usize;
        limit(
            "number of extended attributes",
            count as u64,
            MAX_XATTRS as u64,
        )?;
        let mut xattrs = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.bytes16("extended attribute's name", MAX_XATTR_NAME)?;
            let value = self.bytes16("extended attribute's value", MAX_XATTR_VALUE)?;
            if name.contains(&0) {
                return Err(self.malformed("name of an extended attribute has a zero byte"));
            }
            xattrs.push((name, value));
        }
        let kind = match kind {
            1 => Kind::File {
                size: self.u64(WITHIN)?,
            },
            2 => Kind::Directory,
            3 => Kind::Symlink {
                target: self.target()?,
            },
            4 => Kind::Link {
                target: self.bytes16("path", super::super::tree::MAX_PATH)?,
            },
            5 => Kind::Fifo,
            6 => Kind::Socket,
            7 => Kind::Character {
                major: self.u32(WITHIN)?,
                minor: self.u32(WITHIN)?,
            },
            8 => Kind::Block {
                major: self.u32(WITHIN)?,
                minor: self.u32(WITHIN)?,
            },
            9 => Kind::Patch {
                size: self.u64(WITHIN)?,
                from: self.u32(WITHIN)?,
            },
            _ => return Err(self.malformed("unknown kind of entry")),
        };
        if matches!(kind, Kind::File { size } | Kind::Patch { size, .. } if i64::try_from(size).is_err())
        {
            return Err(self.malformed("file is larger than any file can be"));
        }
        Ok(Some(Item::Entry(Entry {
            path,
            attributes: Attributes {
                mode,
                uid,
                gid,
                mtime,
                xattrs,
            },
            kind,
        })))
    }

    fn target(&mut self) -> Result<Vec<u8>, DiffError> {
        let target = self.bytes16("symlink's target", MAX_TARGET)?;
        if target.is_empty() || target.contains(&0) {
            return Err(self.malformed("symlink's target is empty or has a zero byte"));
        }
        Ok(target)
    }

    /// The next run of a file of `size` bytes that begins at or after `from`; None: the last.
    pub(super) fn run(&mut self, from: u64, size: u64) -> Result<Option<Run>, DiffError> {
        let (offset, length) = (self.u64("a file")?, self.u64("a file")?);
        let is_hole = length & HOLE != 0;
        let length = length & !HOLE;
        if length == 0 {
            return if offset == size && !is_hole {
                Ok(None)
            } else {
                Err(self.malformed("end of a file is not at its size"))
            };
        }
        if offset < from || offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(self.malformed("run is out of order or beyond the file's end"));
        }
        Ok(Some(Run {
            offset,
            length,
            is_hole,
        }))
    }

    pub(super) fn data(&mut self, buffer: &mut [u8]) -> Result<(), DiffError> {
        self.fill(buffer, "a file's content")
    }

    /// Checks the totals and the checksum, and that nothing follows.
    pub(super) fn end(mut self, entries: u64, bytes: u64) -> Result<Mark, DiffError> {
        if (self.u64("the end")?, self.u64("the end")?) != (entries, bytes) {
            return Err(self.malformed("totals do not match the entries"));
        }
        let expected = self.hash.finalize();
        // blake3's own comparison takes the same time whatever differs; not needed, but there.
        if blake3::Hash::from_bytes(self.array("the checksum")?) != expected {
            return Err(DiffError::Checksum);
        }
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(Mark(*expected.as_bytes())),
                Ok(_) => return Err(self.malformed("something follows the end")),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(DiffError::Read {
                        read: self.read,
                        source,
                    });
                }
            }
        }
    }

    pub(super) fn malformed(&self, what: &'static str) -> DiffError {
        DiffError::Malformed {
            read: self.read,
            what,
        }
    }

    fn bytes16(&mut self, what: &'static str, max: usize) -> Result<Vec<u8>, DiffError> {
        let len = u16::from_le_bytes(self.array(what)?);
        limit(what, len.into(), max as u64)?;
        let mut bytes = vec![0; len.into()];
        self.fill(&mut bytes, what)?;
        Ok(bytes)
    }

    fn u32(&mut self, within: &'static str) -> Result<u32, DiffError> {
        Ok(u32::from_le_bytes(self.array(within)?))
    }

    fn u64(&mut self, within: &'static str) -> Result<u64, DiffError> {
        Ok(u64::from_le_bytes(self.array(within)?))
    }

    fn array<const N: usize>(&mut self, within: &'static str) -> Result<[u8; N], DiffError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, within)?;
        Ok(bytes)
    }

    fn fill(&mut self, buffer: &mut [u8], within: &'static str) -> Result<(), DiffError> {
        let read = self.read;
        self.input
            .read_exact(buffer)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => DiffError::Truncated { read, within },
                _ => DiffError::Read { read, source },
            })?;
        self.hash.update(buffer);
        self.read += buffer.len() as u64;
        Ok(())
    }
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), DiffError> {
    if found > limit {
        Err(DiffError::Limit { what, found, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = Entry> {
        let bytes = |max| prop::collection::vec(1u8.., 1..max);
        let kind = prop_oneof![
            (0..=i64::MAX as u64).prop_map(|size| Kind::File { size }),
            Just(Kind::Directory),
            bytes(64).prop_map(|target| Kind::Symlink { target }),
            bytes(64).prop_map(|target| Kind::Link { target }),
            Just(Kind::Fifo),
            Just(Kind::Socket),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Character { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| Kind::Block { major, minor }),
            (0..=i64::MAX as u64, any::<u32>()).prop_map(|(size, from)| Kind::Patch { size, from }),
        ];
        let xattrs =
            prop::collection::vec((bytes(20), prop::collection::vec(any::<u8>(), 0..40)), 0..4);
        let attributes = (
            0..=0o7777u32,
            0..u32::MAX,
            0..u32::MAX,
            any::<i64>(),
            0..1_000_000_000u32,
            xattrs,
        );
        (bytes(100), attributes, kind).prop_map(|(path, (mode, uid, gid, s, ns, xattrs), kind)| {
            Entry {
                path,
                attributes: Attributes {
                    mode,
                    uid,
                    gid,
                    mtime: (s, ns),
                    xattrs,
                },
                kind,
            }
        })
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(entries in prop::collection::vec(any_entry(), 0..8)) {
            let mut stream = Vec::new();
            let mut encoder = Encoder::new(&mut stream, Mark([7; 32])).unwrap();
            for entry in &entries {
                encoder.entry(entry).unwrap();
            }
            encoder.keep(b"kept").unwrap();
            encoder.remove(b"gone").unwrap();
            let mark = encoder.end(entries.len() as u64, 0).unwrap();
            let mut decoder = Decoder::new(stream.as_slice()).unwrap();
            prop_assert_eq!(decoder.base, Mark([7; 32]));
            for entry in &entries {
                prop_assert_eq!(decoder.item().unwrap(), Some(Item::Entry(entry.clone())));
            }
            prop_assert_eq!(decoder.item().unwrap(), Some(Item::Keep(b"kept".to_vec())));
            prop_assert_eq!(decoder.item().unwrap(), Some(Item::Remove(b"gone".to_vec())));
            prop_assert_eq!(decoder.item().unwrap(), None);
            prop_assert_eq!(decoder.end(entries.len() as u64, 0).unwrap(), mark);
        }
    }
}
