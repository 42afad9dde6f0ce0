//! The members of a tar stream, with bounds on all that is kept in memory.
//!
//! The tar crate parses the header blocks; the walk is ours, for the crate's own takes extension
//! headers of any length, and splits PAX records at newlines, which a `security.capability` value
//! may contain.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::error::TarFault;
use crate::rootfs::xattr::Xattr;

const BLOCK: u64 = 512;
/// One extension header: a long name, or PAX records.
const MAX_EXTENSION: u64 = 4 << 20;
/// Extension headers before one member.
const MAX_EXTENSIONS: usize = 16;
const MAX_RUNS: usize = 1 << 20;
/// What may follow the end marker: tools pad to their block size.
const MAX_TRAILER: u64 = 16 << 20;

const XATTR: &[u8] = b"SCHILY.xattr.";

#[derive(Debug)]
pub(crate) struct Member {
    pub kind: EntryType,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    pub xattrs: Vec<Xattr>,
    /// Of the file, holes included.
    pub size: u64,
    /// Where the stream's content belongs in the file; None: one run from 0.
    pub runs: Option<Vec<(u64, u64)>>,
}

pub(crate) struct Members<R> {
    input: R,
    read: u64,
    /// Content of the current member that was not read yet, and what pads it to a block.
    left: u64,
    padding: u64,
    current: String,
    /// The end marker was seen, not only the end.
    pub marked: bool,
}

/// PAX records that matter here.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<Xattr>,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(input: R) -> Self {
        let current = "the first header".to_owned();
        Self {
            input,
            read: 0,
            left: 0,
            padding: 0,
            current,
            marked: false,
        }
    }

    /// The next member; what was not read of the last is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarFault> {
        self.skip()?;
        let mut pax = Pax::default();
        let (mut long_path, mut long_link) = (None, None);
        for extensions in 0.. {
            let at = self.read;
            if extensions > MAX_EXTENSIONS {
                return Err(self.malformed("too many extension headers"));
            }
            let Some(header) = self.header()? else {
                return if extensions == 0 {
                    Ok(None)
                } else {
                    Err(self.malformed("extension header without a member"))
                };
            };
            let size = header
                .entry_size()
                .map_err(|source| TarFault::Header { at, source })?;
            match header.entry_type() {
                EntryType::GNULongName => long_path = Some(trimmed(self.extension(size)?)),
                EntryType::GNULongLink => long_link = Some(trimmed(self.extension(size)?)),
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    pax = parse_pax(&records).map_err(|what| TarFault::Malformed { at, what })?;
                }
                // Comments of the tool, mostly.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => {
                    let mut member = self.member(&header, at)?;
                    member.path = long_path.or(pax.path).unwrap_or(member.path);
                    member.link = long_link.or(pax.link).unwrap_or(member.link);
                    member.uid = pax.uid.unwrap_or(member.uid);
                    member.gid = pax.gid.unwrap_or(member.gid);
                    member.mtime = pax.mtime.unwrap_or(member.mtime);
                    member.xattrs = pax.xattrs;
                    let stored = pax.size.unwrap_or(size);
                    self.begin(&mut member, &header, stored, at)?;
                    return Ok(Some(member));
                }
            }
        }
        unreachable!("the loop has a bound that returns")
    }

    /// Content of the current member; 0 at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarFault> {
        let want = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.some(&mut buffer[..want])?;
        if n == 0 {
            return Err(self.truncated());
        }
        self.left -= n as u64;
        Ok(n)
    }

    /// Reads up to the end of the stream, for the sake of whoever hashes or writes it.
    pub(crate) fn finish(mut self) -> Result<R, TarFault> {
        self.skip()?;
        let mut buffer = vec![0; 64 << 10];
        let mut trailer = 0;
        loop {
            match self.some(&mut buffer)? {
                0 => return Ok(self.input),
                n => trailer += n as u64,
            }
            if trailer > MAX_TRAILER {
                return Err(TarFault::Limit {
                    what: "trailer's length",
                    limit: MAX_TRAILER,
                });
            }
        }
    }

    fn member(&self, header: &Header, at: u64) -> Result<Member, TarFault> {
        let bad = |source| TarFault::Header { at, source };
        let path = header.path_bytes().into_owned();
        // Old tars know no directories but by their name.
        let kind = match header.entry_type() {
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        Ok(Member {
            kind,
            path,
            link: header
                .link_name_bytes()
                .map(|link| link.into_owned())
                .unwrap_or_default(),
            mode: header.mode().map_err(bad)? & 0o7777,
            uid: header.uid().map_err(bad)?,
            gid: header.gid().map_err(bad)?,
            // Times before 1970 and nonsense: the beginning.
            mtime: (
                header
                    .mtime()
                    .ok()
                    .and_then(|t| i64::try_from(t).ok())
                    .unwrap_or(0),
                0,
            ),
            device: match kind {
                EntryType::Char | EntryType::Block => (
                    // Blank in some archives; who makes devices refuses what is not one.
                    header.device_major().ok().flatten().unwrap_or(0),
                    header.device_minor().ok().flatten().unwrap_or(0),
                ),
                _ => (0, 0),
            },
            xattrs: Vec::new(),
            size: 0,
            runs: None,
        })
    }

    /// Sets sizes, and for a sparse file the runs.
    fn begin(
        &mut self,
        member: &mut Member,
        header: &Header,
        stored: u64,
        at: u64,
    ) -> Result<(), TarFault> {
        self.current = format!("`{}`", String::from_utf8_lossy(&member.path));
        member.size = stored;
        if member.kind == EntryType::GNUSparse {
            let (runs, size) = self.runs(header, stored, at)?;
            member.size = size;
            member.runs = Some(runs);
        }
        let has_content = matches!(
            member.kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        );
        // Some tools note a link's or a directory's size, and write no content.
        let known = has_content
            || matches!(
                member.kind,
                EntryType::Link
                    | EntryType::Symlink
                    | EntryType::Char
                    | EntryType::Block
                    | EntryType::Directory
                    | EntryType::Fifo
            );
        self.expect(if has_content || !known { stored } else { 0 });
        if !has_content {
            member.size = 0;
        }
        Ok(())
    }

    fn runs(
        &mut self,
        header: &Header,
        stored: u64,
        at: u64,
    ) -> Result<(Vec<(u64, u64)>, u64), TarFault> {
        let bad = |source| TarFault::Header { at, source };
        let malformed = |what| TarFault::Malformed { at, what };
        let gnu = header
            .as_gnu()
            .ok_or(malformed("sparse file without a GNU header"))?;
        let size = gnu.real_size().map_err(bad)?;
        let mut runs = Vec::new();
        let (mut end, mut sum) = (0u64, 0u64);
        let mut extended = gnu.is_extended();
        let mut block = GnuExtSparseHeader::new();
        let mut listed: &[_] = &gnu.sparse;
        loop {
            for run in listed.iter().filter(|run| !run.is_empty()) {
                let (offset, length) = (run.offset().map_err(bad)?, run.length().map_err(bad)?);
                let next = offset.checked_add(length).filter(|next| *next <= size);
                match next {
                    Some(next) if offset >= end => end = next,
                    _ => return Err(malformed("runs of a sparse file overlap or exceed it")),
                }
                sum += length;
                if length > 0 {
                    runs.push((offset, length));
                }
                if runs.len() > MAX_RUNS {
                    let limit = MAX_RUNS as u64;
                    return Err(TarFault::Limit {
                        what: "number of runs of a file",
                        limit,
                    });
                }
            }
            if !extended {
                break;
            }
            self.whole(block.as_mut_bytes())?;
            extended = block.is_extended();
            listed = block.sparse();
        }
        if sum != stored {
            return Err(malformed("runs of a sparse file are not its content"));
        }
        Ok((runs, size))
    }

    /// None: the end, with or without its marker.
    fn header(&mut self) -> Result<Option<Header>, TarFault> {
        let at = self.read;
        let mut header = Header::new_old();
        let first = self.some(&mut header.as_mut_bytes()[..])?;
        if first == 0 {
            return Ok(None);
        }
        self.whole(&mut header.as_mut_bytes()[first..])?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            self.marked = true;
            return Ok(None);
        }
        let sum = bytes[..148]
            .iter()
            .chain(&bytes[156..])
            .map(|b| u32::from(*b))
            .sum::<u32>();
        let found = header
            .cksum()
            .map_err(|source| TarFault::Header { at, source })?;
        if sum + 8 * 32 != found {
            let source = io::Error::new(io::ErrorKind::InvalidData, "header checksum differs");
            return Err(TarFault::Header { at, source });
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarFault> {
        if size > MAX_EXTENSION {
            let limit = MAX_EXTENSION;
            return Err(TarFault::Limit {
                what: "extension header's length",
                limit,
            });
        }
        self.current = "an extension header".to_owned();
        let mut bytes = vec![0; size as usize];
        self.whole(&mut bytes)?;
        self.expect(size);
        self.left = 0;
        self.skip()?;
        Ok(bytes)
    }

    fn expect(&mut self, content: u64) {
        self.left = content;
        self.padding = content.next_multiple_of(BLOCK).wrapping_sub(content) % BLOCK;
    }

    fn skip(&mut self) -> Result<(), TarFault> {
        let mut buffer = [0; 16 << 10];
        while self.left > 0 {
            self.read(&mut buffer)?;
        }
        let padding = std::mem::take(&mut self.padding) as usize;
        self.whole(&mut buffer[..padding])
    }

    fn whole(&mut self, buffer: &mut [u8]) -> Result<(), TarFault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..])? {
                0 => return Err(self.truncated()),
                n => filled += n,
            }
        }
        Ok(())
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, TarFault> {
        loop {
            match self.input.read(buffer) {
                Ok(n) => {
                    self.read += n as u64;
                    return Ok(n);
                }
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                // So says a decompressor whose input ended.
                Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.truncated());
                }
                Err(source) => {
                    return Err(TarFault::Read {
                        read: self.read,
                        source,
                    });
                }
            }
        }
    }

    fn truncated(&self) -> TarFault {
        TarFault::Truncated {
            read: self.read,
            within: self.current.clone(),
        }
    }

    fn malformed(&self, what: &'static str) -> TarFault {
        TarFault::Malformed {
            at: self.read,
            what,
        }
    }
}

fn trimmed(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// `length key=value\n`, the length in decimal and of the whole record.
fn parse_pax(mut records: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !records.is_empty() {
        let space = records
            .iter()
            .position(|b| *b == b' ')
            .ok_or("record without a length")?;
        let length: usize = number(&records[..space]).ok_or("record without a length")?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err("record's length is wrong");
        }
        let record = &records[space + 1..length - 1];
        let equals = record
            .iter()
            .position(|b| *b == b'=')
            .ok_or("record without a value")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => pax.path = Some(value.to_owned()),
            b"linkpath" => pax.link = Some(value.to_owned()),
            b"size" => pax.size = Some(number(value).ok_or("size is no number")?),
            b"uid" => pax.uid = Some(number(value).ok_or("uid is no number")?),
            b"gid" => pax.gid = Some(number(value).ok_or("gid is no number")?),
            b"mtime" => pax.mtime = Some(time(value).ok_or("mtime is no time")?),
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse file in PAX form"),
            _ if key.starts_with(XATTR) => {
                pax.xattrs
                    .push((key[XATTR.len()..].to_owned(), value.to_owned()));
            }
            _ => {}
        }
        records = &records[length..];
    }
    Ok(pax)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    // `FromStr` takes a sign, tar knows none here.
    if text.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `seconds.fraction`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    // -1.25 is 0.75 after -2.
    match (negative, nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pax_values_may_hold_newlines() {
        let pax = parse_pax(b"30 SCHILY.xattr.user.a=x\n3 y\n\n20 mtime=-1.2500000\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"x\n3 y\n".to_vec())]);
        assert_eq!(pax.mtime, Some((-2, 750_000_000)));
        for bad in [
            "x",
            "5 a=b\n",
            "6 a=b",
            "6 ab\n\n",
            "99999999999999999999 a=b\n",
            "0 =\n",
        ] {
            assert!(parse_pax(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut members = Members::new(bytes.as_slice());
            while let Ok(Some(_)) = members.next() {}
            let _ = parse_pax(&bytes);
        }
    }
}
