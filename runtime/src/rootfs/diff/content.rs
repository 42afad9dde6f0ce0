//! The content of a file in chunks: which of them changed since they were sent.
//!
//! A chunk's hash covers where in it are data and holes, so that a hole that was filled with zeros,
//! or zeros that became a hole, are a change. A chunk that is all hole has none.

use std::{
    collections::HashSet,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::{fs::SeekFrom, io::Errno};

use super::{DiffError, format::Encoder};

pub(super) const CHUNK: u64 = 256 << 10;
/// Smaller files are sent whole.
pub(super) const LARGE: u64 = 1 << 20;

/// Chunks for which it is worth to begin a thread, and threads of one file.
const LEAST_SHARE: usize = 16;
const MOST_THREADS: usize = 8;

/// The chunks with data, in order.
pub(super) type Chunks = Vec<(u64, [u8; 32])>;

/// How a file is sent.
#[derive(Clone, Copy)]
pub(super) enum Against<'a> {
    /// All of it, and nobody asks again.
    Nothing,
    /// All of it, and what was sent is remembered.
    New,
    /// What is not as it was.
    Chunks(&'a Chunks),
}

pub(super) struct Source<'a> {
    pub file: &'a OwnedFd,
    pub path: &'a Path,
    /// What was announced. The rest of a file that gets shorter is sent as zeros.
    pub size: u64,
    /// Nobody may change it.
    pub is_still: bool,
}

/// Sends the runs of a file, and their end. Answers the bytes of them, and what to remember.
pub(super) fn send<W: Write>(
    out: &mut Encoder<W>,
    source: &Source<'_>,
    against: Against<'_>,
) -> Result<(u64, Chunks), DiffError> {
    let empty = Chunks::new();
    let known = match against {
        Against::Chunks(chunks) => chunks,
        Against::Nothing | Against::New => &empty,
    };
    let same = unchanged(source, known)?;
    let mut old = known.iter().copied().peekable();
    let (mut bytes, mut new, mut at) = (0, Chunks::new(), 0);
    let mut reader = Reader::new(source);
    loop {
        let next = reader.next(at)?.map(|(start, _)| start / CHUNK);
        // What had data, and is a hole now.
        while let Some((chunk, _)) = old.next_if(|(chunk, _)| next.is_none_or(|next| *chunk < next))
        {
            let start = chunk * CHUNK;
            if start < source.size {
                out.hole(start, CHUNK.min(source.size - start))?;
            }
        }
        let Some(chunk) = next else { break };
        let start = chunk * CHUNK;
        let end = source.size.min(start + CHUNK);
        at = end;
        let before = old.next_if(|(old, _)| *old == chunk);
        if let Some(before) = before.filter(|_| same.contains(&chunk)) {
            new.push(before);
            continue;
        }
        let runs = reader.read(chunk)?;
        if !matches!(against, Against::Nothing) {
            let hash = reader.hash(chunk, &runs);
            new.push((chunk, hash));
            if before.is_some_and(|(_, before)| before == hash) {
                continue;
            }
        }
        let mut done = start;
        let mut data = reader.data(&runs);
        for (from, to) in runs {
            if before.is_some() && from > done {
                out.hole(done, from - done)?;
            }
            let (this, rest) = data.split_at((to - from) as usize);
            out.run(from, to - from)?;
            out.data(this)?;
            data = rest;
            bytes += to - from;
            done = to;
        }
        if before.is_some() && done < end {
            out.hole(done, end - done)?;
        }
    }
    out.run(source.size, 0)?;
    Ok((bytes, new))
}

/// Those of the chunks that are as they were, with all processors: this is most of what a freeze
/// spends on a file of which little changed.
fn unchanged(source: &Source<'_>, known: &Chunks) -> Result<HashSet<u64>, DiffError> {
    let processors = thread::available_parallelism().map_or(1, |count| count.get());
    let share = known.len().div_ceil(processors.min(MOST_THREADS));
    if share < LEAST_SHARE {
        return Ok(HashSet::new());
    }
    let look = |part: &[(u64, [u8; 32])]| {
        let mut reader = Reader::new(source);
        let mut same = Vec::new();
        for (chunk, hash) in part {
            let runs = reader.read(*chunk)?;
            if reader.hash(*chunk, &runs) == *hash {
                same.push(*chunk);
            }
        }
        Ok(same)
    };
    let mut all = HashSet::new();
    thread::scope(|scope| {
        let looking: Vec<_> = known
            .chunks(share)
            .map(|part| scope.spawn(move || look(part)))
            .collect();
        for thread in looking {
            all.extend(thread.join().expect("a reader does not panic")?);
        }
        Ok(all)
    })
}

/// Data of a chunk: from where to where.
type Runs = Vec<(u64, u64)>;

/// Reads a file chunk by chunk.
struct Reader<'a> {
    source: &'a Source<'a>,
    extents: Extents<'a>,
    buffer: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Self {
            source,
            extents: Extents {
                source,
                current: None,
            },
            buffer: vec![0; CHUNK.min(source.size) as usize],
        }
    }

    fn next(&mut self, at: u64) -> Result<Option<(u64, u64)>, DiffError> {
        self.extents.next(at)
    }

    fn read(&mut self, chunk: u64) -> Result<Runs, DiffError> {
        let start = chunk * CHUNK;
        let runs = self
            .extents
            .runs(start, self.source.size.min(start + CHUNK))?;
        let mut free = self.buffer.as_mut_slice();
        for (from, to) in &runs {
            let (this, rest) = free.split_at_mut((to - from) as usize);
            read(self.source, this, *from)?;
            free = rest;
        }
        Ok(runs)
    }

    /// What was read last, without the holes.
    fn data(&self, runs: &Runs) -> &[u8] {
        let length: u64 = runs.iter().map(|(from, to)| to - from).sum();
        &self.buffer[..length as usize]
    }

    /// Of what was read last.
    fn hash(&self, chunk: u64, runs: &Runs) -> [u8; 32] {
        let start = chunk * CHUNK;
        let length = self.source.size.saturating_sub(start).min(CHUNK);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&length.to_le_bytes());
        for (from, to) in runs {
            hasher.update(&from.to_le_bytes());
            hasher.update(&to.to_le_bytes());
        }
        hasher.update(self.data(runs));
        *hasher.finalize().as_bytes()
    }
}

/// Fills the buffer with what is at `at`.
fn read(source: &Source<'_>, mut free: &mut [u8], mut at: u64) -> Result<(), DiffError> {
    while !free.is_empty() {
        match rustix::io::pread(source.file, &mut *free, at) {
            Ok(0) if source.is_still => return Err(changed(source)),
            // It is shorter now. Its times say so, too.
            Ok(0) => {
                free.fill(0);
                return Ok(());
            }
            Ok(n) => {
                free = &mut free[n..];
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(source, errno)),
        }
    }
    Ok(())
}

/// Where a file has data.
struct Extents<'a> {
    source: &'a Source<'a>,
    /// The one that was found last.
    current: Option<(u64, u64)>,
}

impl Extents<'_> {
    /// The data at `at`, or the next after it. A file system that knows no holes has one extent.
    fn next(&mut self, at: u64) -> Result<Option<(u64, u64)>, DiffError> {
        let source = self.source;
        if at >= source.size {
            return Ok(None);
        }
        if let Some((start, end)) = self.current.filter(|(_, end)| at < *end) {
            return Ok(Some((start.max(at), end)));
        }
        let file = source.file.as_fd();
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < source.size => start,
            // Nothing but a hole from here on.
            Ok(_) | Err(Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(failed(source, errno)),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end.min(source.size),
            // Cut off in between.
            Ok(_) | Err(Errno::NXIO) if !source.is_still => return Ok(None),
            Ok(_) => return Err(changed(source)),
            Err(errno) => return Err(failed(source, errno)),
        };
        self.current = Some((start, end));
        Ok(self.current)
    }

    /// The data from `start` to `end`.
    fn runs(&mut self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, DiffError> {
        let mut runs = Vec::new();
        let mut at = start;
        while let Some((from, to)) = self.next(at)?.filter(|(from, _)| *from < end) {
            runs.push((from, to.min(end)));
            at = to;
            if at >= end {
                break;
            }
        }
        Ok(runs)
    }
}

fn changed(source: &Source<'_>) -> DiffError {
    DiffError::Changed {
        path: source.path.to_owned(),
    }
}

fn failed(source: &Source<'_>, errno: Errno) -> DiffError {
    DiffError::ReadEntry {
        path: source.path.to_owned(),
        source: errno.into(),
    }
}
