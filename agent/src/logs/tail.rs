//! Where the last lines of a log begin, read backwards.

use std::{io, os::unix::fs::FileExt};

use godwit_runtime::log::Segment;

const BLOCK: u64 = 64 << 10;

/// The place before the last `lines` entries of these files, the oldest of which is the first.
pub fn last(segments: &[Segment], lines: u64) -> io::Result<u64> {
    let mut left = lines;
    for segment in segments.iter().rev() {
        // A line that is being written now is no line yet.
        let (place, counted) = back(segment, left)?;
        if counted >= left {
            return Ok(segment.base + place);
        }
        left -= counted;
    }
    Ok(segments.first().map_or(0, |segment| segment.base))
}

/// Where so many of its last entries begin, and how many there are of them.
fn back(segment: &Segment, lines: u64) -> io::Result<(u64, u64)> {
    let mut ends_seen = 0;
    let mut at = segment.len;
    while at > 0 {
        let begin = at.saturating_sub(BLOCK);
        let mut block = vec![0; (at - begin) as usize];
        segment.file.read_exact_at(&mut block, begin)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The end of the line before those that are wanted.
            if ends_seen == lines {
                return Ok((begin + index as u64 + 1, lines));
            }
            ends_seen += 1;
        }
        at = begin;
    }
    let entries = ends_seen - u64::from(segment.headed && ends_seen > 0);
    Ok((0, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_runtime::log;

    #[test]
    fn the_last_lines_are_found_across_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let old = "a\nbb\nccc\n";
        std::fs::write(log::rotated(&path, 0), old).unwrap();
        let header = log::header(old.len() as u64);
        std::fs::write(&path, format!("{header}dddd\neeeee\ntorn")).unwrap();
        let segments = log::segments(&path).unwrap();
        let base = old.len() as u64 + header.len() as u64;
        let at = |lines| last(&segments, lines).unwrap();
        assert_eq!(at(0), base + 11);
        assert_eq!(at(1), base + 5);
        assert_eq!(at(2), base);
        assert_eq!(at(3), 5);
        assert_eq!(at(4), 2);
        assert_eq!(at(5), 0);
        assert_eq!(at(500), 0);
    }

    #[test]
    fn lines_longer_than_a_block_are_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let long = "x".repeat(3 * BLOCK as usize);
        std::fs::write(&path, format!("a\n{long}\nb\n")).unwrap();
        let segments = log::segments(&path).unwrap();
        assert_eq!(last(&segments, 1).unwrap(), long.len() as u64 + 3);
        assert_eq!(last(&segments, 2).unwrap(), 2);
    }
}
