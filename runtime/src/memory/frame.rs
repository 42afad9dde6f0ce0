//! What travels from a source's session to a destination's store.

use bytes::Bytes;

use super::PAGE;

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
    /// Whole pages.
    Pages(Bytes),
    /// This many pages that were sent before are zero now, or not there any more.
    Zero(u64),
    /// This many pages come after the container runs again; what was sent of them is stale.
    Later(u64),
}

impl Frame {
    /// Frames of the same cell must arrive in the order in which they were made.
    pub fn cell(&self) -> u64 {
        self.address / (FRAME_PAGES as u64 * PAGE)
    }

    /// The first address behind it.
    pub fn end(&self) -> u64 {
        self.address
            + match &self.content {
                Content::Pages(bytes) => bytes.len() as u64,
                Content::Zero(pages) | Content::Later(pages) => pages * PAGE,
            }
    }
}
