//! Pages of a task, read and cut into frames: zeros are left out, and so is what is gone.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{FRAME_PAGES, Frame, PAGE, buffers::Buffer, maps::Span, sys};

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Data,
    Zero,
    /// Not there any more, or changed under our hands: the next scan says what to do.
    Unread,
}

/// What was read of a span.
#[derive(Debug, Default)]
pub struct Found {
    pub frames: Vec<Frame>,
    /// Pages that hold only zeros.
    pub zero: Vec<Span>,
    /// Pages that are not there any more, or can't be read.
    pub unread: Vec<Span>,
}

/// Reads at most [`FRAME_PAGES`] pages.
pub fn read(pid: i32, task: u32, span: Span) -> io::Result<Found> {
    debug_assert!(span.pages() <= FRAME_PAGES as u64);
    let length = (span.end - span.start) as usize;
    let mut buffer = Buffer::take();
    let unread = fill(pid, span.start, &mut buffer.bytes_mut()[..length])?;
    let bytes = buffer.freeze(length);
    let kinds: Vec<Page> = bytes
        .chunks_exact(PAGE as usize)
        .enumerate()
        .map(|(index, page)| match page {
            _ if unread.contains(&index) => Page::Unread,
            page if is_zero(page) => Page::Zero,
            _ => Page::Data,
        })
        .collect();
    let mut found = Found::default();
    let mut first = 0;
    for run in kinds.chunk_by(PartialEq::eq) {
        let (from, to) = (first * PAGE as usize, (first + run.len()) * PAGE as usize);
        first += run.len();
        let address = span.start + from as u64;
        if run[0] == Page::Data {
            let pages = bytes.slice(from..to);
            found.frames.push(Frame::pages(task, address, pages));
            continue;
        }
        let rest = Span {
            start: address,
            end: span.start + to as u64,
        };
        match run[0] {
            Page::Zero => found.zero.push(rest),
            _ => found.unread.push(rest),
        }
    }
    Ok(found)
}

/// Fills the buffer; answers which of its pages could not be read.
pub(super) fn fill(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<Vec<usize>> {
    let mut unread = Vec::new();
    let mut at = 0;
    while at < buffer.len() {
        match sys::read_memory(pid, address + at as u64, &mut buffer[at..]) {
            Ok(read) if read > 0 => at += read,
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Err(error),
            // Unmapped meanwhile, or not readable by the task itself: only the latter is read
            // by its file.
            _ => {
                let page = &mut buffer[at..at + PAGE as usize];
                let mem = File::open(format!("/proc/{pid}/mem"))?;
                if mem.read_exact_at(page, address + at as u64).is_err() {
                    unread.push(at / PAGE as usize);
                }
                at += PAGE as usize;
            }
        }
    }
    Ok(unread)
}

pub(super) fn is_zero(page: &[u8]) -> bool {
    // Most pages that are not zero say so at once.
    page.chunks_exact(64)
        .all(|line| line.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;

    #[test]
    fn zeros_are_left_out_and_the_rest_is_cut_into_frames() {
        let mut memory = vec![0u8; 8 * PAGE as usize];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let skip = (start - memory.as_ptr() as u64) as usize;
        for page in [1, 2, 5] {
            memory[skip + page * PAGE as usize + 4095] = page as u8;
        }
        let span = Span {
            start,
            end: start + 7 * PAGE,
        };
        let found = read(std::process::id() as i32, 3, span).unwrap();
        let at: Vec<_> = found
            .frames
            .iter()
            .map(|frame| ((frame.address - start) / PAGE, (frame.end() - start) / PAGE))
            .collect();
        assert_eq!(at, [(1, 3), (5, 6)]);
        let zero: u64 = found.zero.iter().map(|span| span.pages()).sum();
        assert_eq!(zero, 4);
        let Content::Pages { bytes, .. } = &found.frames[0].content else {
            panic!("no pages");
        };
        assert!(found.frames.iter().all(Frame::is_whole));
        assert_eq!(bytes[2 * PAGE as usize - 1], 2);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let span = Span {
            start: PAGE,
            end: 3 * PAGE,
        };
        let found = read(std::process::id() as i32, 1, span).unwrap();
        assert!(found.frames.is_empty());
        assert!(found.zero.is_empty());
        assert_eq!(found.unread, [span]);
    }
}
