//! An instance's log as chunks, each with the place after it, so that a follower can go on where
//! it was when the container has moved.

use std::{
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use godwit_proto::{
    control::{LogChunk, log_chunk::Source},
    limits,
};
use godwit_runtime::log::{self, Entry, Segment, Stream};

use tail::last;

mod tail;

/// Longest line that is read; a longer one is left out.
const LINE: usize = limits::MESSAGE / 2;
/// A file that is not found while files are rotated is there a moment later.
const AGAIN: u32 = 50;
const SOON: Duration = Duration::from_millis(2);

/// Which of its entries are wanted, and how they look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Nanoseconds since 1970. 0: no bound.
    pub since: u64,
    pub until: u64,
    /// Each begins with its time.
    pub timestamps: bool,
}

impl Wanted {
    fn takes(&self, entry: &Entry) -> bool {
        if self.since == 0 && self.until == 0 {
            return true;
        }
        let at = entry.nanos().unwrap_or(0);
        at >= self.since && (self.until == 0 || at <= self.until)
    }

    fn text(&self, entry: &Entry) -> Vec<u8> {
        let bytes = entry.bytes();
        match self.timestamps {
            true => [entry.time.as_bytes(), b" ", &bytes].concat(),
            false => bytes,
        }
    }
}

/// A log and how far it was read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    segment: Arc<Segment>,
    offset: u64,
    /// Bytes of one read: grows while a line does not fit.
    window: usize,
    wanted: Wanted,
    /// Nothing is read that begins here or later.
    limit: u64,
}

impl Reader {
    /// From this place on, or from the first that is still there.
    pub fn open(path: &Path, skip: u64, wanted: Wanted) -> io::Result<Self> {
        let segment = find(path, skip)?;
        Ok(Self {
            path: path.to_owned(),
            offset: skip.max(segment.base),
            segment: Arc::new(segment),
            window: limits::CHUNK,
            wanted,
            limit: u64::MAX,
        })
    }

    /// Not beyond this place, or what there is now.
    pub fn stop_at(mut self, end: Option<u64>) -> io::Result<Self> {
        self.limit = match end {
            Some(end) => end,
            None => {
                let last = log::segments(&self.path)?.pop();
                last.map_or(0, |last| last.base + last.len)
            }
        };
        Ok(self)
    }

    /// Where the last `lines` entries begin, and where they end.
    pub fn tail(path: &Path, lines: u64) -> io::Result<(u64, u64)> {
        let segments = log::segments(path)?;
        let end = segments.last().map_or(0, |last| last.base + last.len);
        Ok((last(&segments, lines)?, end))
    }

    /// Where it stands: what `skip` takes to go on from here.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What has come since the last call; empty: nothing yet. Blocks on the disk.
    pub fn read(&mut self) -> io::Result<Vec<LogChunk>> {
        loop {
            let left = self.limit.saturating_sub(self.offset);
            if left == 0 {
                return Ok(Vec::new());
            }
            let size = usize::try_from(left).map_or(self.window, |left| left.min(self.window));
            let mut buffer = vec![0; size];
            let got = self.fill(&mut buffer)?;
            let (chunks, used) = chunks(&buffer[..got], self.offset, self.wanted);
            self.offset += used as u64;
            if used > 0 {
                self.window = limits::CHUNK;
                // Lines that give no chunks, and more may follow them.
                if chunks.is_empty() {
                    continue;
                }
                return Ok(chunks);
            }
            if got < buffer.len() {
                if self.advance()? {
                    continue;
                }
                return Ok(Vec::new());
            }
            if self.window < LINE {
                self.window *= 2;
            } else {
                // Its end is then read as the rest of a line, which is skipped.
                self.offset += got as u64;
            }
        }
    }

    /// Whether there is more to read since this file was rotated.
    fn advance(&mut self) -> io::Result<bool> {
        let ours = self.segment.file.metadata()?;
        let present = match std::fs::metadata(&self.path) {
            Ok(present) => present,
            // It is being rotated this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if (ours.dev(), ours.ino()) == (present.dev(), present.ino()) {
            return Ok(false);
        }
        // Nothing is written to it any more: what came between the read and now is read first.
        let end = self.segment.base + ours.len();
        if self.offset < end {
            return Ok(true);
        }
        let next = find(&self.path, end)?;
        if next.base < end {
            return Ok(false);
        }
        self.offset = next.base;
        self.segment = Arc::new(next);
        Ok(true)
    }

    fn fill(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        let begin = self.offset - self.segment.base;
        while got < buffer.len() {
            let rest = &mut buffer[got..];
            match self.segment.file.read_at(rest, begin + got as u64) {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }
}

/// The file that has this place, or the first after it.
fn find(path: &Path, offset: u64) -> io::Result<Segment> {
    for attempt in 1.. {
        let mut segments = log::segments(path)?;
        let at = segments.iter().rposition(|found| found.base <= offset);
        let hole = match at {
            // Between two files, or before all of them.
            Some(at) => {
                let found = &segments[at];
                at + 1 < segments.len() && offset > found.base + found.len
            }
            None => true,
        };
        if hole && attempt < AGAIN {
            std::thread::sleep(SOON);
            continue;
        }
        // What was dropped is gone: the first that comes after it.
        let at = match at {
            Some(at) if hole => at + 1,
            Some(at) => at,
            None => 0,
        };
        return Ok(segments.swap_remove(at));
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The complete lines of `bytes`, which begin at `offset` of the log, and how many bytes they
/// took. Lines of the same source are put together.
fn chunks(bytes: &[u8], offset: u64, wanted: Wanted) -> (Vec<LogChunk>, usize) {
    let mut chunks = Vec::new();
    let mut pending: Option<(Source, Vec<u8>)> = None;
    let mut used = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") {
            break;
        }
        for entry in log::parse(line).0 {
            if !wanted.takes(&entry) {
                continue;
            }
            let source = match entry.stream {
                Stream::Stdout => Source::Stdout,
                Stream::Stderr => Source::Stderr,
            };
            let text = wanted.text(&entry);
            let joins = pending.as_ref().is_some_and(|(of, data)| {
                *of == source && data.len() + text.len() <= limits::CHUNK
            });
            if !joins {
                flush(&mut chunks, pending.take(), offset + used as u64);
            }
            let (_, data) = pending.get_or_insert_with(|| (source, Vec::new()));
            data.extend_from_slice(&text);
        }
        used += line.len();
    }
    flush(&mut chunks, pending, offset + used as u64);
    (chunks, used)
}

/// `offset`: the log's after the last line of `pending`.
fn flush(chunks: &mut Vec<LogChunk>, pending: Option<(Source, Vec<u8>)>, offset: u64) {
    let Some((source, data)) = pending else {
        return;
    };
    let mut data = Bytes::from(data);
    // The parts of a long line carry its end: a follower that breaks off between them misses
    // the rest of that line, and never reads a part twice.
    while !data.is_empty() {
        let data = data.split_to(data.len().min(limits::CHUNK));
        chunks.push(LogChunk {
            source: source.into(),
            data,
            offset,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write};

    fn line(stream: &str, text: &str) -> String {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"t\"}}\n")
    }

    fn open(path: &Path, skip: u64) -> Reader {
        Reader::open(path, skip, Wanted::default()).unwrap()
    }

    #[test]
    fn lines_of_one_source_join_and_offsets_lead_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let (a, b, c) = (
            line("stdout", "a"),
            line("stdout", "b"),
            line("stderr", "c"),
        );
        let mut file = File::create(&path).unwrap();
        write!(file, "{a}{b}{c}not json\n{{\"log\":\"to").unwrap();
        let mut reader = open(&path, 0);
        let chunks = reader.read().unwrap();
        assert_eq!(chunks.len(), 2);
        assert_eq!(&chunks[0].data[..], b"a\nb\n");
        assert_eq!(chunks[0].offset, (a.len() + b.len()) as u64);
        assert_eq!(&chunks[1].data[..], b"c\n");
        assert!(reader.read().unwrap().is_empty());

        writeln!(file, "rn\",\"stream\":\"stdout\",\"time\":\"t\"}}").unwrap();
        assert_eq!(&reader.read().unwrap()[0].data[..], b"torn");

        let mut now = open(&path, 0).stop_at(None).unwrap();
        write!(file, "{}", line("stdout", "after")).unwrap();
        let said: usize = now.read().unwrap().iter().map(|c| c.data.len()).sum();
        assert_eq!(said, "a\nb\nc\ntorn".len());
        assert!(now.read().unwrap().is_empty());

        let mut later = open(&path, chunks[0].offset);
        assert_eq!(&later.read().unwrap()[0].data[..], b"c\n");
    }

    #[test]
    fn a_reader_goes_on_through_files_that_are_rotated_under_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        std::fs::write(&path, line("stdout", "one")).unwrap();
        let mut reader = open(&path, 0);
        assert_eq!(&reader.read().unwrap()[0].data[..], b"one\n");
        // What came last into the file, then the next.
        let mut old = File::options().append(true).open(&path).unwrap();
        write!(old, "{}", line("stdout", "two")).unwrap();
        let size = old.metadata().unwrap().len();
        std::fs::rename(&path, log::rotated(&path, 0)).unwrap();
        std::fs::write(
            &path,
            format!("{}{}", log::header(size), line("stdout", "three")),
        )
        .unwrap();
        assert_eq!(&reader.read().unwrap()[0].data[..], b"two\n");
        assert_eq!(&reader.read().unwrap()[0].data[..], b"three\n");
        assert!(reader.read().unwrap().is_empty());
        let at = reader.offset();
        assert_eq!(at, size + std::fs::metadata(&path).unwrap().len());

        // One who comes back finds its place, or the first that is left.
        let mut again = open(&path, size);
        assert_eq!(&again.read().unwrap()[0].data[..], b"three\n");
        std::fs::remove_file(log::rotated(&path, 0)).unwrap();
        let mut late = open(&path, 0);
        assert_eq!(&late.read().unwrap()[0].data[..], b"three\n");
        assert!(open(&path, at).read().unwrap().is_empty());
    }

    #[test]
    fn entries_are_chosen_by_their_time_and_begin_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let at = |second: u32| format!("2026-01-01T00:00:0{second}.000000000Z");
        let text: String = (1..=4)
            .map(|n| {
                format!(
                    "{{\"log\":\"{n}\\n\",\"stream\":\"stdout\",\"time\":\"{}\"}}\n",
                    at(n)
                )
            })
            .collect();
        std::fs::write(&path, text).unwrap();
        let nanos = |second: u64| (1_767_225_600 + second) * 1_000_000_000;
        let wanted = Wanted {
            since: nanos(2),
            until: nanos(3),
            timestamps: true,
        };
        let chunks = Reader::open(&path, 0, wanted).unwrap().read().unwrap();
        let expected = format!("{} 2\n{} 3\n", at(2), at(3));
        assert_eq!(&chunks[0].data[..], expected.as_bytes());
    }

    #[test]
    fn a_line_longer_than_a_chunk_comes_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let text = line("stdout", &"x".repeat(limits::CHUNK + 5));
        std::fs::write(&path, &text).unwrap();
        let chunks = open(&path, 0).read().unwrap();
        assert_eq!(
            chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>(),
            limits::CHUNK + 6
        );
        assert!(chunks.iter().all(|chunk| chunk.offset == text.len() as u64));
    }

    #[test]
    fn a_line_without_end_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let huge = format!("{}\n{}", "x".repeat(3 * LINE), line("stdout", "after"));
        std::fs::write(&path, huge).unwrap();
        let chunks = open(&path, 0).read().unwrap();
        assert_eq!(&chunks[0].data[..], b"after\n");
    }
}
