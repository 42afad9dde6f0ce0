//! Which pages are not CRIU's to dump, and what is left of a question about pages without them.
//!
//! While a container is dumped its private memory is carried to the destination by another way,
//! round by round; a page that went that way must not be read, piped and written by CRIU once
//! more, inside the freeze. The shim writes the ranges into a memory file once every task is
//! stopped, and names its descriptor in [`VARIABLE`]:
//!
//! ```text
//! 8 bytes   "GODWHIDE"     written last: until then nothing is hidden
//! 8 bytes   count
//! count × { pid: u64, start: u64, end: u64 }    in order, not overlapping
//! ```
//!
//! Numbers are those of this machine. The pid is the one CRIU sees.

pub const VARIABLE: &core::ffi::CStr = c"GODWIT_HIDDEN_FD";
pub const MAGIC: u64 = u64::from_ne_bytes(*b"GODWHIDE");

/// One line of the table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub pid: u64,
    pub start: u64,
    pub end: u64,
}

/// What to do with a question about the pages from `start` to `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Ask the kernel, but only as far as this. The caller goes on from there.
    Ask { end: u64 },
    /// Nothing is there as far as this.
    Nothing { end: u64 },
}

/// CRIU asks again from where an answer ends, so that only its beginning matters.
pub fn answer(table: &[Range], pid: u64, start: u64, end: u64) -> Answer {
    // The first range that ends after `start`.
    let at = table.partition_point(|range| (range.pid, range.end) <= (pid, start));
    match table.get(at) {
        Some(range) if range.pid == pid && range.start <= start => Answer::Nothing {
            end: range.end.min(end),
        },
        Some(range) if range.pid == pid && range.start < end => Answer::Ask { end: range.start },
        _ => Answer::Ask { end },
    }
}

const PAGE: u64 = 4096;
/// Of a page, in `/proc/PID/pagemap`.
const WORD: u64 = 8;

/// Where `PAGEMAP_SCAN` is missing, CRIU reads the pagemap itself: what it read from an offset on,
/// without hidden pages.
pub fn blank(table: &[Range], pid: u64, offset: u64, words: &mut [u8]) {
    let start = offset / WORD * PAGE;
    let end = start + words.len() as u64 / WORD * PAGE;
    let at = table.partition_point(|range| (range.pid, range.end) <= (pid, start));
    let ranges = table[at..].iter();
    for range in ranges.take_while(|range| range.pid == pid && range.start < end) {
        let place = |address: u64| ((address.clamp(start, end) - start) / PAGE * WORD) as usize;
        words[place(range.start)..place(range.end)].fill(0);
    }
}

/// Names the directory where the mappings of large tasks lie ready, a file per pid; see
/// `godwit_runtime::memory`.
pub const SMAPS: &core::ffi::CStr = c"GODWIT_SMAPS";

/// The pid in `/proc/PID`.
pub fn pid_of_directory(path: &[u8]) -> Option<u64> {
    digits(path.strip_prefix(b"/proc/")?)
}

/// The pid in `/proc/PID/pagemap`, or in the same path without its beginning.
pub fn pid_of_pagemap(path: &[u8]) -> Option<u64> {
    let rest = path.strip_suffix(b"/pagemap")?;
    digits(rest.rsplit(|byte| *byte == b'/').next()?)
}

fn digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [Range; 4] = [
        range(7, 0x1000, 0x3000),
        range(7, 0x3000, 0x4000),
        range(7, 0x8000, 0x9000),
        range(9, 0x1000, 0x2000),
    ];

    const fn range(pid: u64, start: u64, end: u64) -> Range {
        Range { pid, start, end }
    }

    #[test]
    fn a_question_ends_where_hidden_pages_begin() {
        let ask = |end| Answer::Ask { end };
        let nothing = |end| Answer::Nothing { end };
        for (pid, start, end, expected) in [
            (7, 0x0, 0x800, ask(0x800)),
            (7, 0x0, 0x2000, ask(0x1000)),
            (7, 0x1000, 0x9000, nothing(0x3000)),
            (7, 0x2000, 0x2800, nothing(0x2800)),
            (7, 0x3000, 0x9000, nothing(0x4000)),
            (7, 0x4000, 0x9000, ask(0x8000)),
            (7, 0x9000, 0xffff, ask(0xffff)),
            (8, 0x1000, 0x9000, ask(0x9000)),
            (9, 0x1000, 0x9000, nothing(0x2000)),
            (10, 0x1000, 0x9000, ask(0x9000)),
        ] {
            assert_eq!(answer(&TABLE, pid, start, end), expected, "{pid} {start:x}");
        }
        assert_eq!(answer(&[], 7, 0, 1), ask(1));
    }

    #[test]
    fn what_was_read_of_hidden_pages_is_blank() {
        let blanked = |pid, first: u64, count: usize| -> String {
            let mut words = vec![7; count * 8];
            blank(&TABLE, pid, first * 8, &mut words);
            let word = |word: &[u8]| if word == [0; 8] { '-' } else { 'x' };
            words.chunks(8).map(word).collect()
        };
        assert_eq!(blanked(7, 0, 11), "x---xxxx-xx");
        assert_eq!(blanked(7, 2, 7), "--xxxx-");
        assert_eq!(blanked(9, 0, 3), "x-x");
        assert_eq!(blanked(8, 0, 3), "xxx");
        assert_eq!(blanked(7, 9, 0), "");
    }

    #[test]
    fn only_a_pagemap_names_a_task() {
        assert_eq!(pid_of_pagemap(b"/proc/61/pagemap"), Some(61));
        assert_eq!(pid_of_pagemap(b"61/pagemap"), Some(61));
        for other in [
            &b"/proc/self/pagemap"[..],
            b"/proc/61/maps",
            b"/pagemap",
            b"/99999999999/pagemap",
        ] {
            assert_eq!(pid_of_pagemap(other), None);
        }
        assert_eq!(pid_of_directory(b"/proc/61"), Some(61));
        for other in [&b"/proc/self"[..], b"/proc", b"/proc/61/task", b"/data/61"] {
            assert_eq!(pid_of_directory(other), None);
        }
    }
}
