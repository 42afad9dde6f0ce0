//! A container's output on disk: one JSON object a line, as Docker's `json-file` has it. The
//! shim writes, the agent reads; the file moves with the container.

use serde::{Deserialize, Serialize};

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
}

/// The log file's name in the instance's directory.
pub const FILE: &str = "log.json";

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
}
