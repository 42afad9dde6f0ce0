//! What a stream is compressed with, told by its first bytes.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read},
    path::Path,
};

const PEEK: usize = 4;

/// The plain stream behind gzip, zstd or nothing.
pub(crate) fn plain<'a>(mut input: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(PEEK);
    input.by_ref().take(PEEK as u64).read_to_end(&mut start)?;
    let kind = kind_of(&start);
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(start).chain(input));
    Ok(match kind {
        Kind::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Kind::Zstd => Box::new(zstd::Decoder::with_buffer(whole)?),
        Kind::Plain => Box::new(whole),
    })
}

/// As [`plain`] would take it; in the order of OCI's media types of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain = 0,
    Gzip = 1,
    Zstd = 2,
}

/// What a file is compressed with.
pub(super) fn kind(path: &Path) -> io::Result<Kind> {
    let mut start = Vec::with_capacity(PEEK);
    File::open(path)?
        .take(PEEK as u64)
        .read_to_end(&mut start)?;
    Ok(kind_of(&start))
}

fn kind_of(start: &[u8]) -> Kind {
    if start.starts_with(&[0x1f, 0x8b]) {
        Kind::Gzip
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable(start) {
        Kind::Zstd
    } else {
        Kind::Plain
    }
}

/// A zstd stream may begin with a frame of somebody's notes.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}
