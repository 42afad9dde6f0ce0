//! An instance's log file as chunks, each with the place after it, so that a follower can go on
//! where it was when the container has moved.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use bytes::Bytes;
use godwit_proto::{
    control::{LogChunk, log_chunk::Source},
    limits,
};
use godwit_runtime::log::{self, Stream};

/// Longest line that is read; a longer one is left out.
const LINE: usize = limits::MESSAGE / 2;

/// A log file and how far it was read.
#[derive(Debug)]
pub struct Reader {
    file: Arc<File>,
    offset: u64,
    /// Bytes of one read: grows while a line does not fit.
    window: usize,
}

impl Reader {
    pub fn open(path: &Path, skip: u64) -> io::Result<Self> {
        let file = Arc::new(File::open(path)?);
        Ok(Self {
            file,
            offset: skip,
            window: limits::CHUNK,
        })
    }

    /// What has come since the last call; empty: nothing yet. Blocks on the disk.
    pub fn read(&mut self) -> io::Result<Vec<LogChunk>> {
        loop {
            let mut buffer = vec![0; self.window];
            let got = self.fill(&mut buffer)?;
            let (chunks, used) = chunks(&buffer[..got], self.offset);
            self.offset += used as u64;
            if used > 0 {
                self.window = limits::CHUNK;
                // Lines that can't be read give no chunks, and more may follow them.
                if chunks.is_empty() {
                    continue;
                }
                return Ok(chunks);
            }
            if got < buffer.len() {
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

    fn fill(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self
                .file
                .read_at(&mut buffer[got..], self.offset + got as u64)
            {
                Ok(0) => break,
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(got)
    }
}

/// The complete lines of `bytes`, which begin at `offset` of the file, and how many bytes they
/// took. Lines of the same source are put together.
fn chunks(bytes: &[u8], offset: u64) -> (Vec<LogChunk>, usize) {
    let mut chunks = Vec::new();
    let mut pending: Option<(Source, Vec<u8>)> = None;
    let mut used = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if !line.ends_with(b"\n") {
            break;
        }
        for entry in log::parse(line).0 {
            let source = match entry.stream {
                Stream::Stdout => Source::Stdout,
                Stream::Stderr => Source::Stderr,
            };
            let joins = pending.as_ref().is_some_and(|(of, data)| {
                *of == source && data.len() + entry.log.len() <= limits::CHUNK
            });
            if !joins {
                flush(&mut chunks, pending.take(), offset + used as u64);
            }
            let (_, data) = pending.get_or_insert_with(|| (source, Vec::new()));
            data.extend_from_slice(entry.log.as_bytes());
        }
        used += line.len();
    }
    flush(&mut chunks, pending, offset + used as u64);
    (chunks, used)
}

/// `offset`: the file's after the last line of `pending`.
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
    use std::io::Write;

    fn line(stream: &str, text: &str) -> String {
        format!("{{\"log\":\"{text}\\n\",\"stream\":\"{stream}\",\"time\":\"t\"}}\n")
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
        let mut reader = Reader::open(&path, 0).unwrap();
        let chunks = reader.read().unwrap();
        assert_eq!(chunks.len(), 2);
        assert_eq!(&chunks[0].data[..], b"a\nb\n");
        assert_eq!(chunks[0].offset, (a.len() + b.len()) as u64);
        assert_eq!(&chunks[1].data[..], b"c\n");
        assert!(reader.read().unwrap().is_empty());

        writeln!(file, "rn\",\"stream\":\"stdout\",\"time\":\"t\"}}").unwrap();
        assert_eq!(&reader.read().unwrap()[0].data[..], b"torn");

        let mut later = Reader::open(&path, chunks[0].offset).unwrap();
        assert_eq!(&later.read().unwrap()[0].data[..], b"c\n");
    }

    #[test]
    fn a_line_longer_than_a_chunk_comes_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let text = line("stdout", &"x".repeat(limits::CHUNK + 5));
        std::fs::write(&path, &text).unwrap();
        let chunks = Reader::open(&path, 0).unwrap().read().unwrap();
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
        let chunks = Reader::open(&path, 0).unwrap().read().unwrap();
        assert_eq!(&chunks[0].data[..], b"after\n");
    }
}
