//! A container's output on disk: one JSON object a line, as Docker's `json-file` has it. The
//! shim writes, the agent reads; the files move with the container.
//!
//! The log is one sequence of bytes, of which the beginning may be gone. A file that begins after
//! others begins with a line that says how many bytes came before it ([`header`]), and counts that
//! line as the log's; rotated, it has that number behind [`FILE`] and a dot, and never another
//! name. So a place in the log is one number, whatever was rotated since, and on whatever host.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One line of the log file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The text, its newline included where there was one.
    pub log: String,
    pub stream: Stream,
    /// RFC 3339 with nanoseconds.
    pub time: String,
    /// The bytes in hexadecimal, where they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
}

impl Entry {
    pub fn new(bytes: &[u8], stream: Stream, time: String) -> Self {
        let raw = std::str::from_utf8(bytes).is_err();
        Self {
            log: String::from_utf8_lossy(bytes).into_owned(),
            stream,
            time,
            raw: raw.then(|| hex::encode(bytes)),
        }
    }

    /// What the container wrote, byte for byte.
    pub fn bytes(&self) -> Vec<u8> {
        let raw = self.raw.as_ref().and_then(|raw| hex::decode(raw).ok());
        raw.unwrap_or_else(|| self.log.as_bytes().to_vec())
    }

    /// Nanoseconds since 1970.
    pub fn nanos(&self) -> Option<u64> {
        let time = OffsetDateTime::parse(&self.time, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp_nanos()).ok()
    }
}

/// The log file's name in the instance's directory.
pub const FILE: &str = "log.json";
/// More files than these are never kept.
pub const FILES: u32 = 100;

/// The first line of a file that begins after `base` bytes of the log.
pub fn header(base: u64) -> String {
    format!("{{\"base\":{base}}}\n")
}

/// What the first line says of where a file begins in the log: at its beginning, without such a
/// line.
pub fn base(start: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Header {
        base: u64,
    }
    let line = start.split(|byte| *byte == b'\n').next();
    line.and_then(|line| serde_json::from_slice::<Header>(line).ok())
        .map_or(0, |header| header.base)
}

/// The name of a file that begins there, once it is rotated.
pub fn rotated(path: &Path, base: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{base}"));
    name.into()
}

/// Where a rotated file of this name begins. None: it is none.
pub fn rotated_base(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(FILE)?.strip_prefix('.')?;
    let base: u64 = digits.parse().ok()?;
    // One way to write it.
    (base.to_string() == digits).then_some(base)
}

/// The rotated files of the log at `path`, the oldest first.
pub fn rotated_files(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        if let Some(base) = entry.file_name().to_str().and_then(rotated_base) {
            found.push((base, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// A file of a log.
#[derive(Debug)]
pub struct Segment {
    pub file: File,
    /// Where it begins in the log.
    pub base: u64,
    pub len: u64,
    /// Whether its first line says so, and is no entry.
    pub headed: bool,
}

/// The files of the log at `path`, the oldest first.
pub fn segments(path: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    let rotated = rotated_files(path)?.into_iter().map(|(_, path)| path);
    for path in rotated.chain([path.to_owned()]) {
        match File::open(path) {
            Ok(file) => found.push(segment(file)?),
            // Rotated, or dropped, this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|segment| (segment.base, segment.len));
    // The same file under two names, seen while it was rotated.
    found.dedup_by_key(|segment| segment.base);
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(found)
}

fn segment(file: File) -> io::Result<Segment> {
    let mut start = Vec::new();
    (&file).take(64).read_to_end(&mut start)?;
    Ok(Segment {
        base: base(&start),
        len: file.metadata()?.len(),
        headed: start.starts_with(b"{\"base\":"),
        file,
    })
}

/// Reads complete lines from `bytes`: the entries, and how many bytes they took. A line that is
/// torn at the end stays for the next call; one that can't be read is skipped.
pub fn parse(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let end = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let entries = bytes[..end]
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    (entries, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_waits_for_its_end() {
        let text = b"{\"log\":\"a\\n\",\"stream\":\"stdout\",\"time\":\"t\"}\n{\"log\":\"b";
        let (entries, used) = parse(text);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].stream, Stream::Stdout);
        assert_eq!(&text[used..], b"{\"log\":\"b");
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let time = "2026-01-02T03:04:05.000000006Z".to_owned();
        for bytes in [&b"plain\n"[..], b"\xff\xfe\0\n"] {
            let entry = Entry::new(bytes, Stream::Stdout, time.clone());
            let line = serde_json::to_vec(&entry).unwrap();
            let read: Entry = serde_json::from_slice(&line).unwrap();
            assert_eq!(read.bytes(), bytes);
            assert_eq!(read.nanos(), Some(1_767_323_045_000_000_006));
        }
    }

    #[test]
    fn files_of_a_log_are_told_by_their_names_and_their_first_lines() {
        assert_eq!(rotated_base("log.json.0"), Some(0));
        assert_eq!(rotated_base("log.json.700"), Some(700));
        for other in [
            "log.json",
            "log.json.",
            "log.json.x",
            "log.json.+1",
            "log.json.01",
        ] {
            assert_eq!(rotated_base(other), None, "{other}");
        }
        let path = Path::new("/d").join(FILE);
        assert_eq!(rotated(&path, 9), Path::new("/d/log.json.9"));
        assert_eq!(base(header(42).as_bytes()), 42);
        assert_eq!(
            base(b"{\"log\":\"a\",\"stream\":\"stdout\",\"time\":\"t\"}\n"),
            0
        );
        assert_eq!(base(b""), 0);
    }
}
