//! Buffers that are read into again once what was in them has been sent: new memory for each frame
//! would be cleared by the kernel, page by page.

use std::sync::Mutex;

use bytes::Bytes;

use super::{FRAME_PAGES, PAGE};

const SIZE: usize = FRAME_PAGES * PAGE as usize;
/// More than wait for the lanes at any time.
const KEPT: usize = 96;

static FREE: Mutex<Vec<Buffer>> = Mutex::new(Vec::new());

/// A frame's pages; what is in them is of whoever had them before.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    pub fn take() -> Self {
        let kept = FREE.lock().expect("no holder panics").pop();
        kept.unwrap_or_else(|| Self(vec![0; SIZE].into()))
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Its first bytes, shared; the last of them to go gives the buffer back.
    pub fn freeze(self, length: usize) -> Bytes {
        Bytes::from_owner(Shared(Some(self))).slice(..length)
    }
}

struct Shared(Option<Buffer>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |buffer| &buffer.0)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut free = FREE.lock().expect("no holder panics");
        if let Some(buffer) = self.0.take()
            && free.len() < KEPT
        {
            free.push(buffer);
        }
    }
}

/// Gives back what is kept: no memory is moving.
pub fn forget() {
    FREE.lock().expect("no holder panics").clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_the_last_part_of_it_is_gone() {
        let mut buffer = Buffer::take();
        buffer.bytes_mut()[..3].copy_from_slice(b"abc");
        let at = buffer.0.as_ptr();
        let whole = buffer.freeze(3);
        let part = whole.slice(1..);
        drop(whole);
        assert_ne!(Buffer::take().0.as_ptr(), at, "a part is still in use");
        assert_eq!(part, b"bc"[..]);
        drop(part);
        assert_eq!(Buffer::take().0.as_ptr(), at);
        forget();
    }
}
