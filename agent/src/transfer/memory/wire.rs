//! What a lane is on the wire: after the handshake, records both ways.
//!
//! ```text
//! source                                            destination
//!   open {passage, lane, of how many}                  expected? from this host?
//!   (pages | zero | later | mark)*                       each checked and in place
//!                                   done | failed      to the open, to each mark, to the close
//!   close {frames, bytes, fingerprints}                counted, compared
//! ```
//!
//! A record is a header of 32 bytes, little-endian, and as many bytes as it says:
//!
//! ```text
//!  0  kind: u8      4  length: u32     8  task: u32     16  address: u64
//!  1  zstd: u8      (what follows)    12  pages: u32    24  hash: u64
//!  2  zeros
//! ```
//!
//! Pages may be compressed (`zstd` is 1); the hash is that of what they become. `open`, `close` and `failed` carry a message of `transfer.proto` or a document; fields that a
//! kind does not use are zero. What a lane of another version means by a record is not known, so
//! that the version is in the protocol's name ([`PROTOCOL`]), and again in the passage.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use godwit_proto::{document, limits};
use godwit_runtime::memory::{Content, FRAME_PAGES, Frame, PAGE};
use godwit_types::CommandFailure;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::compress::Unpacker;

/// By this name of ALPN a connection is a lane.
pub const PROTOCOL: &[u8] = b"godwit-memory/1";

const HEADER: usize = 32;
/// Bytes of one frame's pages.
pub const PAGES: usize = FRAME_PAGES * PAGE as usize;
const OPEN: usize = 4 << 10;
const FAILURE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("lane broke off")]
    Broken(#[from] io::Error),
    #[error("lane brought a record of kind {kind} with {length} bytes, which is none")]
    Record { kind: u8, length: u32 },
    #[error("lane brought compressed pages that can't be unpacked")]
    Packed(#[source] io::Error),
    #[error("lane brought a message that can't be read")]
    Message(#[from] prost::DecodeError),
}

/// What is behind a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Open = 1,
    Pages = 2,
    Zero = 3,
    Mark = 4,
    Close = 5,
    Done = 6,
    Failed = 7,
    Later = 8,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        let kinds = [Open, Pages, Zero, Mark, Close, Done, Failed, Later];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The most bytes behind its header.
    fn most(self) -> usize {
        match self {
            Self::Open => OPEN,
            Self::Pages => PAGES,
            Self::Close => limits::MESSAGE,
            Self::Failed => FAILURE,
            Self::Zero | Self::Later | Self::Mark | Self::Done => 0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    packed: bool,
    task: u32,
    pages: u32,
    address: u64,
    hash: u64,
    pub body: Bytes,
}

impl Record {
    pub fn bare(kind: Kind) -> Self {
        Self {
            kind,
            packed: false,
            task: 0,
            pages: 0,
            address: 0,
            hash: 0,
            body: Bytes::new(),
        }
    }

    pub fn message(kind: Kind, message: &impl Message) -> Self {
        Self {
            body: message.encode_to_vec().into(),
            ..Self::bare(kind)
        }
    }

    pub fn failed(failure: &CommandFailure) -> Self {
        let mut failure = failure.clone();
        // With its escapes it must fit.
        failure.message = failure.message.chars().take(FAILURE / 16).collect();
        Self::message(Kind::Failed, &document::write(&failure))
    }

    /// The failure in it, if there is one.
    pub fn failure(self) -> Option<CommandFailure> {
        let document = Message::decode(self.body).ok()?;
        document::read(&document).ok()
    }

    /// `packed`: its pages, compressed.
    pub fn frame(frame: Frame, packed: Option<Bytes>) -> Self {
        let pages = ((frame.end() - frame.address) / PAGE) as u32;
        let (kind, hash, body) = match frame.content {
            Content::Pages { bytes, hash } => (Kind::Pages, hash, bytes),
            Content::Zero(_) => (Kind::Zero, 0, Bytes::new()),
            Content::Later(_) => (Kind::Later, 0, Bytes::new()),
        };
        Self {
            kind,
            packed: packed.is_some(),
            task: frame.task,
            pages,
            address: frame.address,
            hash,
            body: packed.unwrap_or(body),
        }
    }

    /// The frame in it: one of pages, of pages to come, or else of zeros. Its address and length are the store's to
    /// check.
    pub fn into_frame(self, unpacker: &mut Unpacker) -> Result<Frame, WireError> {
        let Self { task, address, .. } = self;
        let content = match self.kind {
            Kind::Pages => Content::Pages {
                bytes: if self.packed {
                    let length = (self.pages as usize).min(FRAME_PAGES) * PAGE as usize;
                    let unpacked = unpacker.unpack(&self.body, length);
                    unpacked.map_err(WireError::Packed)?
                } else {
                    self.body
                },
                hash: self.hash,
            },
            Kind::Later => Content::Later(u64::from(self.pages)),
            _ => Content::Zero(u64::from(self.pages)),
        };
        Ok(Frame {
            task,
            address,
            content,
        })
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = self.kind as u8;
        header[1] = u8::from(self.packed);
        header[4..8].copy_from_slice(&(self.body.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&self.task.to_le_bytes());
        header[12..16].copy_from_slice(&self.pages.to_le_bytes());
        header[16..24].copy_from_slice(&self.address.to_le_bytes());
        header[24..].copy_from_slice(&self.hash.to_le_bytes());
        header
    }
}

/// Sends a record; flushing is the caller's.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), record: &Record) -> io::Result<()> {
    let header = record.header();
    let mut both = Buf::chain(header.as_slice(), record.body.clone());
    to.write_all_buf(&mut both).await
}

/// Reads records into memory that it uses again once the last one was dropped.
#[derive(Default)]
pub struct Reader {
    buffer: BytesMut,
}

impl Reader {
    /// The next one; None: the other side ended in good order. No more memory is taken than the
    /// kind may fill.
    pub async fn read(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Record>, WireError> {
        let mut header = [0; HEADER];
        match from.read(&mut header).await? {
            0 => return Ok(None),
            read => from.read_exact(&mut header[read..]).await?,
        };
        let word = |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("32 bytes"));
        let long = |at: usize| u64::from_le_bytes(*header[at..].first_chunk().expect("32 bytes"));
        let length = word(4);
        let kind = Kind::of(header[0])
            .filter(|kind| length as usize <= kind.most())
            .filter(|kind| header[1] <= u8::from(*kind == Kind::Pages))
            .filter(|_| header[2..4] == [0; 2])
            .ok_or(WireError::Record {
                kind: header[0],
                length,
            })?;
        let length = length as usize;
        self.buffer.reserve(length);
        let mut rest = from.take(length as u64);
        while self.buffer.len() < length {
            if rest.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(Some(Record {
            kind,
            packed: header[1] == 1,
            task: word(8),
            pages: word(12),
            address: long(16),
            hash: long(24),
            body: self.buffer.split().freeze(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use godwit_types::FailureKind;

    use super::*;

    async fn through(record: &Record) -> Record {
        let mut sent = Vec::new();
        write(&mut sent, record).await.unwrap();
        let mut from = sent.as_slice();
        let mut reader = Reader::default();
        let read = reader.read(&mut from).await.unwrap().unwrap();
        assert!(reader.read(&mut from).await.unwrap().is_none());
        read
    }

    #[tokio::test]
    async fn a_record_reads_back() {
        let bytes: Vec<u8> = (0..2 * PAGE).map(|at| at as u8).collect();
        let pages = Frame::pages(7, 0x7f12_3456_7000, bytes.into());
        let zero = Frame {
            content: Content::Zero(64),
            ..pages.clone()
        };
        let mut unpacker = Unpacker::new().unwrap();
        let later = Frame {
            content: Content::Later(1 << 20),
            ..pages.clone()
        };
        for frame in [pages.clone(), zero, later] {
            let read = through(&Record::frame(frame.clone(), None)).await;
            assert_eq!(read.into_frame(&mut unpacker).unwrap(), frame);
        }
        let Content::Pages { bytes, .. } = &pages.content else {
            panic!("no pages");
        };
        let packed = Bytes::from(zstd::bulk::compress(bytes, 1).unwrap());
        let read = through(&Record::frame(pages.clone(), Some(packed.clone()))).await;
        assert_eq!(read.body, packed);
        assert_eq!(read.into_frame(&mut unpacker).unwrap(), pages);
        for count in [0, 1, 3, u32::MAX] {
            let mut other = Record::frame(pages.clone(), Some(packed.clone()));
            other.pages = count;
            let error = other.into_frame(&mut unpacker).unwrap_err();
            assert!(matches!(error, WireError::Packed(_)), "{count} pages");
        }
        let failure = CommandFailure::new(FailureKind::Unfit, "no room \u{1}".repeat(10_000));
        let read = through(&Record::failed(&failure)).await.failure().unwrap();
        assert_eq!(read.kind, FailureKind::Unfit);
        assert!(failure.message.starts_with(&read.message));
    }

    #[tokio::test]
    async fn what_is_no_record_is_refused_before_memory_is_taken_for_it() {
        let header = |kind: u8, length: u32| {
            let mut header = [0; HEADER];
            header[0] = kind;
            header[4..8].copy_from_slice(&length.to_le_bytes());
            header
        };
        let most = PAGES as u32;
        for (kind, length) in [
            (0, 0),
            (9, 0),
            (8, 1),
            (2, most + 1),
            (3, 1),
            (4, 1),
            (1, u32::MAX),
        ] {
            let mut reader = Reader::default();
            let read = reader.read(&mut header(kind, length).as_slice()).await;
            assert!(matches!(read, Err(WireError::Record { .. })), "{kind}");
            assert_eq!(reader.buffer.capacity(), 0);
        }
        let mut odd = header(4, 0);
        odd[1] = 1;
        assert!(Reader::default().read(&mut odd.as_slice()).await.is_err());
        // Shorter than it says.
        for cut in [&header(2, 5)[..], &header(2, 5)[..9]] {
            let read = Reader::default().read(&mut &cut[..]).await;
            assert!(matches!(read, Err(WireError::Broken(_))));
        }
    }
}
