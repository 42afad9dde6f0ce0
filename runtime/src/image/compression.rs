//! What a stream is compressed with, told by its first bytes.

use std::io::{self, BufReader, Cursor, Read};

const PEEK: usize = 4;

/// The plain stream behind gzip, zstd or nothing.
pub(crate) fn plain<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(PEEK);
    input.by_ref().take(PEEK as u64).read_to_end(&mut start)?;
    let is = |magic: &[u8]| start.starts_with(magic);
    let (gzip, zstd) = (
        is(&[0x1f, 0x8b]),
        is(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(&start),
    );
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(start).chain(input));
    Ok(if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(zstd::Decoder::with_buffer(whole)?)
    } else {
        Box::new(whole)
    })
}

/// A zstd stream may begin with a frame of somebody's notes.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}
