//! What travels from a source's session to a destination's store.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::{PAGE, maps::Span};

/// Pages in one frame at the most: what one message carries. No frame crosses a multiple of it, so
/// that all frames of a page can be kept in order by keeping those of its cell in order.
pub const FRAME_PAGES: usize = 64;

/// One change of one task's carried memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The task's pid inside the container.
    pub task: u32,
    /// Where it begins, a multiple of the page size.
    pub address: u64,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Whole pages, and their [`hash`] as it was when they were read.
    Pages { bytes: Bytes, hash: u64 },
    /// This many pages that were sent before are zero now, or not there any more.
    Zero(u64),
    /// This many pages come after the container runs again; what was sent of them is stale.
    Later(u64),
}

/// XXH3 of pages, seeded with where they belong, so that pages in a wrong place are found too. It
/// finds faults of memory and programs; against people there is TLS.
pub fn hash(task: u32, address: u64, bytes: &[u8]) -> u64 {
    // Addresses end in twelve zeros, and begin with at least eight.
    XxHash3_64::oneshot_with_seed(address ^ u64::from(task).rotate_left(56), bytes)
}

impl Frame {
    /// Pages that were just read.
    pub fn pages(task: u32, address: u64, bytes: Bytes) -> Self {
        let hash = hash(task, address, &bytes);
        Self {
            task,
            address,
            content: Content::Pages { bytes, hash },
        }
    }

    /// Whether it is what was read.
    pub fn is_whole(&self) -> bool {
        match &self.content {
            Content::Pages { bytes, hash: given } => hash(self.task, self.address, bytes) == *given,
            Content::Zero(_) | Content::Later(_) => true,
        }
    }

    /// Frames of the same cell must arrive in the order in which they were made.
    pub fn cell(&self) -> u64 {
        self.address / (FRAME_PAGES as u64 * PAGE)
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.address
            + match &self.content {
                Content::Pages { bytes, .. } => bytes.len() as u64,
                Content::Zero(pages) | Content::Later(pages) => pages * PAGE,
            }
    }
}

/// A span cut where frames end.
pub(super) fn cells(span: Span) -> impl Iterator<Item = Span> {
    let step = FRAME_PAGES as u64 * PAGE;
    (span.start / step..span.end.div_ceil(step)).map(move |cell| Span {
        start: span.start.max(cell * step),
        end: span.end.min((cell + 1) * step),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64) -> Span {
        Span {
            start: start * PAGE,
            end: end * PAGE,
        }
    }

    #[test]
    fn frames_keep_to_their_cells() {
        let cut: Vec<_> = cells(span(60, 200)).collect();
        assert_eq!(
            cut,
            [span(60, 64), span(64, 128), span(128, 192), span(192, 200)]
        );
    }

    #[test]
    fn a_frame_that_changed_or_is_elsewhere_is_not_whole() {
        let pages: Vec<u8> = (0..2 * PAGE).map(|at| (at * 7) as u8).collect();
        let frame = Frame::pages(3, 0x7f00_0000_1000, pages.into());
        assert!(frame.is_whole());
        let Content::Pages { bytes, hash } = frame.content.clone() else {
            panic!("no pages");
        };
        for at in [0, 100, 4096, 8191] {
            let mut other = bytes.to_vec();
            other[at] ^= 0x10;
            let content = Content::Pages {
                bytes: other.into(),
                hash,
            };
            assert!(
                !Frame {
                    content,
                    ..frame.clone()
                }
                .is_whole(),
                "byte {at}"
            );
        }
        let elsewhere = frame.address + PAGE;
        assert!(
            !Frame {
                address: elsewhere,
                ..frame.clone()
            }
            .is_whole()
        );
        assert!(!Frame { task: 4, ..frame }.is_whole());
    }
}
