//! The content of a file in chunks: which of them changed since they were sent.
//!
//! A chunk's hash covers where in it are data and holes, so that a hole that was filled with zeros,
//! or zeros that became a hole, are a change. A chunk that is all hole has none.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{fs::SeekFrom, io::Errno};

use super::{DiffError, format::Encoder};

pub(super) const CHUNK: u64 = 256 << 10;
/// Smaller files are sent whole.
pub(super) const LARGE: u64 = 1 << 20;

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
    buffer: &mut Vec<u8>,
) -> Result<(u64, Chunks), DiffError> {
    let empty = Chunks::new();
    let mut old = match against {
        Against::Chunks(chunks) => chunks.iter(),
        Against::Nothing | Against::New => empty.iter(),
    }
    .copied()
    .peekable();
    let (mut bytes, mut new, mut at) = (0, Chunks::new(), 0);
    let mut extents = Extents {
        source,
        current: None,
    };
    loop {
        let next = extents.next(at)?.map(|(start, _)| start / CHUNK);
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
        let runs = extents.runs(start, end)?;
        buffer.clear();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(end - start).to_le_bytes());
        for (from, to) in &runs {
            hasher.update(&from.to_le_bytes());
            hasher.update(&to.to_le_bytes());
            read(source, *from, *to, buffer)?;
        }
        let before = old.next_if(|(old, _)| *old == chunk);
        let is_known = match against {
            Against::Nothing => false,
            Against::New | Against::Chunks(_) => {
                hasher.update(buffer);
                let hash = *hasher.finalize().as_bytes();
                new.push((chunk, hash));
                before.is_some_and(|(_, before)| before == hash)
            }
        };
        at = end;
        if is_known {
            continue;
        }
        let mut done = start;
        let mut data = buffer.as_slice();
        for (from, to) in &runs {
            if before.is_some() && *from > done {
                out.hole(done, from - done)?;
            }
            let (this, rest) = data.split_at((to - from) as usize);
            out.run(*from, to - from)?;
            out.data(this)?;
            data = rest;
            bytes += to - from;
            done = *to;
        }
        if before.is_some() && done < end {
            out.hole(done, end - done)?;
        }
    }
    out.run(source.size, 0)?;
    Ok((bytes, new))
}

/// Appends what is from `from` to `to`.
fn read(source: &Source<'_>, from: u64, to: u64, buffer: &mut Vec<u8>) -> Result<(), DiffError> {
    let begin = buffer.len();
    buffer.resize(begin + (to - from) as usize, 0);
    let mut free = &mut buffer[begin..];
    let mut at = from;
    while !free.is_empty() {
        match rustix::io::pread(source.file, &mut *free, at) {
            Ok(0) if source.is_still => return Err(changed(source)),
            // It is shorter now. Its times say so, too.
            Ok(0) => return Ok(()),
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
