//! Whether frames are compressed on their way: when the link is the limit, and pages shrink enough
//! to be worth the time that it takes.
//!
//! Sending goes in stretches. After each that was sent as it is, one of its frames is compressed to
//! see what that would have brought ([`pays`]); while frames are compressed, a stretch now and then
//! is sent as it is, since the link may have become faster.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use godwit_types::Compression;
use zstd::bulk::{Compressor, Decompressor};

/// zstd's fastest that is of its own kind.
const LEVEL: i32 = 1;
/// A stretch is over when it has this many bytes of pages, or takes this long.
const STRETCH: u64 = 8 << 20;
const LONG: Duration = Duration::from_millis(200);
/// A shorter one says nothing.
const SHORT: u64 = 1 << 20;
/// No processor compresses faster, so that on faster links there is nothing to see.
const FASTEST: f64 = 600e6;
/// So many stretches are sent as they are before it is looked at again whether they should be.
const AGAIN: u32 = 8;
/// So many are compressed before one is sent as it is.
const LOOK: u32 = 32;
/// Compressing has to be faster by so much.
const WORTH: f64 = 1.2;

/// What was seen of a stretch, and of one frame of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Bytes a second that the way takes.
    pub link: f64,
    /// Bytes of pages a second that are read and hashed.
    pub read: f64,
    /// Bytes of pages a second that are compressed.
    pub compress: f64,
    /// What is left of a byte.
    pub ratio: f64,
}

/// Whether memory arrives sooner when it is compressed. Reading and compressing are one thread's,
/// sending is another's.
pub fn pays(seen: &Seen) -> bool {
    let plain = seen.link.min(seen.read);
    let made = 1.0 / (1.0 / seen.read + 1.0 / seen.compress);
    made.min(seen.link / seen.ratio.max(0.001)) > plain * WORTH
}

/// Compresses what a flow sends, if it pays.
pub struct Packer {
    asked: Compression,
    on: bool,
    /// Of [`AGAIN`] or of [`LOOK`].
    stretches: u32,
    began: Instant,
    raw: u64,
    wire: u64,
    waited: Duration,
    compressor: Compressor<'static>,
}

impl Packer {
    pub fn new(asked: Compression) -> io::Result<Self> {
        Ok(Self {
            asked,
            on: asked == Compression::On,
            stretches: AGAIN,
            began: Instant::now(),
            raw: 0,
            wire: 0,
            waited: Duration::ZERO,
            compressor: Compressor::new(LEVEL)?,
        })
    }

    /// A pass begins. `same_way`: it is as fast as in the pass before.
    pub fn begin(&mut self, same_way: bool) {
        if self.asked == Compression::Auto && !same_way {
            (self.on, self.stretches) = (false, AGAIN);
        }
        self.restart();
    }

    fn restart(&mut self) {
        (self.raw, self.wire) = (0, 0);
        self.waited = Duration::ZERO;
        self.began = Instant::now();
    }

    /// These pages compressed. None: they are to be sent as they are.
    pub fn pack(&mut self, pages: &[u8]) -> io::Result<Option<Bytes>> {
        if !self.on {
            return Ok(None);
        }
        let packed = self.compressor.compress(pages)?;
        // What hardly shrinks is not worth the work on the other side.
        let small = packed.len() < pages.len() / 16 * 15;
        Ok(small.then(|| packed.into()))
    }

    /// Pages were sent, as so many bytes, after waiting for the way so long.
    pub fn sent(&mut self, pages: &[u8], wire: usize, waited: Duration) -> io::Result<()> {
        self.raw += pages.len() as u64;
        self.wire += wire as u64;
        self.waited += waited;
        let took = self.began.elapsed();
        let over = self.raw >= STRETCH || (self.raw >= SHORT && took >= LONG);
        if over && self.asked == Compression::Auto {
            self.decide(pages, took)?;
            self.restart();
        }
        Ok(())
    }

    fn decide(&mut self, pages: &[u8], took: Duration) -> io::Result<()> {
        self.stretches += 1;
        if self.on {
            if self.stretches >= LOOK {
                (self.on, self.stretches) = (false, AGAIN);
            }
            return Ok(());
        }
        let link = self.wire as f64 / took.as_secs_f64().max(1e-6);
        // Not the limit, if it was hardly waited for.
        if link > FASTEST || self.waited < took / 8 || self.stretches < AGAIN {
            return Ok(());
        }
        self.stretches = 0;
        let began = Instant::now();
        let packed = self.compressor.compress(pages)?;
        let compress = pages.len() as f64 / began.elapsed().as_secs_f64().max(1e-6);
        let reading = took.saturating_sub(self.waited).as_secs_f64().max(1e-6);
        let seen = Seen {
            link,
            read: self.raw as f64 / reading,
            compress,
            ratio: packed.len() as f64 / pages.len() as f64,
        };
        self.on = pays(&seen);
        tracing::debug!(?seen, on = self.on, "compression");
        Ok(())
    }
}

/// What came compressed, as pages again.
pub struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Decompressor::new()?))
    }

    /// Exactly `length` bytes; what would become more or less is an error, and no more memory than
    /// these is taken.
    pub fn unpack(&mut self, packed: &[u8], length: usize) -> io::Result<Bytes> {
        let mut pages = BytesMut::zeroed(length);
        let found = self.0.decompress_to_buffer(packed, &mut pages[..])?;
        if found == length {
            Ok(pages.freeze())
        } else {
            Err(io::Error::other(format!("{found} bytes, not {length}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen {
        link: 100e6,
        read: 2e9,
        compress: 400e6,
        ratio: 0.4,
    };

    #[test]
    fn it_pays_where_the_link_is_slow_and_pages_shrink() {
        assert!(pays(&SEEN));
        let almost = Seen { ratio: 0.9, ..SEEN };
        assert!(!pays(&almost), "pages that hardly shrink");
        let fast = Seen { link: 1e9, ..SEEN };
        assert!(!pays(&fast), "a link faster than compressing");
        let slow = Seen {
            compress: 110e6,
            ..SEEN
        };
        assert!(!pays(&slow), "a processor as slow as the link");
        let busy = Seen { read: 60e6, ..SEEN };
        assert!(!pays(&busy), "reading is the limit");
        let zeros = Seen { ratio: 0.0, ..SEEN };
        assert!(pays(&zeros));
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7u64;
        let next = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        next.take(length).collect()
    }

    /// Sends frames at so many bytes a second; answers which were compressed.
    fn send(packer: &mut Packer, frame: &[u8], frames: usize, bytes_per_s: f64) -> Vec<bool> {
        let mut all = Vec::new();
        for _ in 0..frames {
            let packed = packer.pack(frame).unwrap();
            let wire = packed.as_ref().map_or(frame.len(), Bytes::len);
            let wait = Duration::from_secs_f64(wire as f64 / bytes_per_s);
            // As if it had taken so long.
            packer.began -= wait;
            packer.sent(frame, wire, wait).unwrap();
            all.push(packed.is_some());
        }
        all
    }

    #[test]
    fn frames_are_compressed_once_the_link_is_seen_to_be_slow() {
        let text: Vec<u8> = b"a page of text, and another one; "
            .iter()
            .copied()
            .cycle()
            .take(256 << 10)
            .collect();
        let mut packer = Packer::new(Compression::Auto).unwrap();
        let slow = send(&mut packer, &text, 400, 2e6);
        assert!(!slow[0] && slow.iter().filter(|packed| **packed).count() > 300);
        // Another way: nothing is known of it.
        packer.begin(false);
        assert_eq!(packer.pack(&text).unwrap(), None);
        let mut packer = Packer::new(Compression::Auto).unwrap();
        assert!(!send(&mut packer, &noise(256 << 10), 400, 2e6).contains(&true));
        let mut packer = Packer::new(Compression::Auto).unwrap();
        assert!(!send(&mut packer, &text, 400, 5e9).contains(&true));
        let mut packer = Packer::new(Compression::Off).unwrap();
        assert!(!send(&mut packer, &text, 400, 2e6).contains(&true));
        let mut packer = Packer::new(Compression::On).unwrap();
        assert!(!send(&mut packer, &text, 400, 5e9).contains(&false));
    }

    #[test]
    fn a_link_that_became_faster_is_noticed() {
        let text = vec![b'x'; 256 << 10];
        let mut packer = Packer::new(Compression::Auto).unwrap();
        assert!(send(&mut packer, &text, 400, 2e6).contains(&true));
        let fast = send(&mut packer, &text, 3000, 5e9);
        assert!(!fast[2000..].contains(&true));
    }

    #[test]
    fn what_is_unpacked_is_never_more_than_was_said() {
        let pages = vec![3; 64 << 10];
        let packed = zstd::bulk::compress(&pages, LEVEL).unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        assert_eq!(unpacker.unpack(&packed, pages.len()).unwrap(), pages);
        for length in [0, 4096, pages.len() - 1, pages.len() + 1, 1 << 20] {
            assert!(unpacker.unpack(&packed, length).is_err(), "{length}");
        }
        assert!(
            unpacker
                .unpack(&packed[..packed.len() / 2], pages.len())
                .is_err()
        );
        assert!(unpacker.unpack(b"nonsense", 4096).is_err());
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], LEVEL).unwrap();
        assert!(bomb.len() < 16 << 10);
        assert!(unpacker.unpack(&bomb, 256 << 10).is_err());
    }
}
