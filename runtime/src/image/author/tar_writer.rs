//! Writes the members of a layer's tar: POSIX headers, with PAX records for what these can't say.
//!
//! The tar crate's own builder knows neither records with zero bytes or newlines in their values,
//! which a `security.capability` has, nor a way to say the same entry twice with the same bytes.

use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::rootfs::xattr::Xattr;

const BLOCK: usize = 512;
/// What the octal fields of a header hold.
const MAX_OWNER: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// One member, but for its content.
pub(crate) struct Entry<'a> {
    pub kind: EntryType,
    /// Relative; a directory's ends with `/`.
    pub path: &'a [u8],
    /// The target of a link.
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub size: u64,
    /// Sorted.
    pub xattrs: &'a [Xattr],
}

pub(crate) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes the header; exactly `size` bytes of [`content`](Self::content) follow, then
    /// [`pad`](Self::pad).
    pub(crate) fn begin(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode & 0o7777);
        let old = header.as_old_mut();
        if !fill(&mut old.name, entry.path) {
            record(&mut records, b"path", entry.path);
        }
        if !fill(&mut old.linkname, entry.link) {
            record(&mut records, b"linkpath", entry.link);
        }
        let owner = |records: &mut Vec<u8>, key: &[u8], id: u32| {
            if id > MAX_OWNER {
                record(records, key, id.to_string().as_bytes());
            }
            u64::from(id.min(MAX_OWNER))
        };
        header.set_uid(owner(&mut records, b"uid", entry.uid));
        header.set_gid(owner(&mut records, b"gid", entry.gid));
        if entry.size > MAX_SIZE {
            record(&mut records, b"size", entry.size.to_string().as_bytes());
        }
        header.set_size(entry.size.min(MAX_SIZE));
        let (seconds, nanoseconds) = entry.mtime;
        let whole = u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds <= MAX_SIZE);
        if nanoseconds != 0 || whole.is_none() {
            record(&mut records, b"mtime", &time(seconds, nanoseconds));
        }
        header.set_mtime(whole.unwrap_or(0));
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        for (name, value) in entry.xattrs {
            record(
                &mut records,
                &[b"SCHILY.xattr.", name.as_slice()].concat(),
                value,
            );
        }
        if !records.is_empty() {
            self.extension(&records)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    pub(crate) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Fills the last block of a member that had `size` bytes.
    pub(crate) fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 {
            return Ok(());
        }
        self.out.write_all(&[0; BLOCK][over..])
    }

    /// The end marker.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn extension(&mut self, records: &[u8]) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.as_old_mut().name[..10].copy_from_slice(b"PaxHeaders");
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(records)?;
        self.pad(records.len() as u64)
    }
}

/// Whether all of it fits.
fn fill(field: &mut [u8], value: &[u8]) -> bool {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
    length == value.len()
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    records.extend(length.to_string().bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

/// `seconds.fraction`, the fraction without zeros at its end.
fn time(seconds: i64, nanoseconds: u32) -> Vec<u8> {
    if nanoseconds == 0 {
        return seconds.to_string().into_bytes();
    }
    // 0.75 after -2 is -1.25.
    let (sign, seconds, nanoseconds) = if seconds < 0 {
        (
            "-",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds,
        )
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').as_bytes().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tar_reader::Members;

    #[test]
    fn what_is_written_is_what_the_reader_finds() {
        let long = vec![b'x'; 300];
        let xattrs = [
            (b"security.capability".to_vec(), b"\x01\n\0\0=x\n".to_vec()),
            (b"user.a".to_vec(), Vec::new()),
        ];
        for mtime in [(0, 0), (7, 5), (-2, 750_000_000), (-1, 1), (1 << 40, 0)] {
            let mut out = TarWriter::new(Vec::new());
            let entry = Entry {
                kind: EntryType::Regular,
                path: &long,
                link: b"",
                mode: 0o4755,
                uid: u32::MAX - 1,
                gid: 5,
                mtime,
                device: (0, 0),
                size: 3,
                xattrs: &xattrs,
            };
            out.begin(&entry).unwrap();
            out.content(b"abc").unwrap();
            out.pad(3).unwrap();
            let bytes = out.finish().unwrap();
            let mut members = Members::new(bytes.as_slice());
            let member = members.next().unwrap().unwrap();
            assert_eq!(member.path, long);
            assert_eq!(
                (member.mode, member.uid, member.gid),
                (0o4755, u64::from(u32::MAX - 1), 5)
            );
            assert_eq!(member.mtime, mtime);
            assert_eq!(member.xattrs, xattrs);
            let mut content = [0; 8];
            assert_eq!(members.read(&mut content).unwrap(), 3);
            assert!(members.next().unwrap().is_none());
        }
    }

    #[test]
    fn a_records_length_counts_its_own_digits() {
        for value in [0, 1, 4, 5, 90, 91, 92, 93, 985, 990] {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; value]);
            let space = records.iter().position(|b| *b == b' ').unwrap();
            let said: usize = std::str::from_utf8(&records[..space])
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, records.len());
        }
    }
}
