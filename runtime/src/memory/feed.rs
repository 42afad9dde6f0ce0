//! What agent and pager say to each other while memory comes after the container runs.
//!
//! ```text
//! both ways, native byte order: { kind: u32, task: u32, address: u64, length: u64 }
//! agent → pager   pages  length bytes of data follow        zero  length bytes of zeros
//!                 lost   nothing more will come, ever
//! pager → agent   missing  a span that is not here yet      told  these were all of them
//!                 want     somebody waits for this page     got   length bytes arrived
//!                 whole    nothing is missing any more
//! ```
//!
//! Both are of one host, yet not always of one release: the pager outlives an upgrade of the
//! agent. Kinds are only ever added; one that is not known ends the connection.

use std::{io, ops::Range};

use super::{FRAME_PAGES, PAGE, maps::Span};

const HEAD: usize = 24;
const MOST: u64 = FRAME_PAGES as u64 * PAGE;

/// From the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// By the address at the time of the freeze.
    Pages {
        task: u32,
        address: u64,
        bytes: Vec<u8>,
    },
    Zero {
        task: u32,
        span: Span,
    },
    Lost,
}

/// To the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Missing { task: u32, span: Span },
    Told,
    Want { task: u32, address: u64 },
    Got { bytes: u64 },
    Whole,
}

const PAGES: u32 = 1;
const ZERO: u32 = 2;
const LOST: u32 = 3;
const MISSING: u32 = 16;
const TOLD: u32 = 17;
const WANT: u32 = 18;
const GOT: u32 = 19;
const WHOLE: u32 = 20;

#[derive(Clone, Copy)]
struct Head {
    kind: u32,
    task: u32,
    address: u64,
    length: u64,
}

impl Head {
    fn encode(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..4].copy_from_slice(&self.kind.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.task.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.address.to_ne_bytes());
        bytes[16..].copy_from_slice(&self.length.to_ne_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD]) -> Self {
        let word = |range: Range<usize>| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[range]);
            u64::from_ne_bytes(word)
        };
        let first = word(0..8).to_ne_bytes();
        let half = |at: usize| {
            u32::from_ne_bytes([first[at], first[at + 1], first[at + 2], first[at + 3]])
        };
        Self {
            kind: half(0),
            task: half(4),
            address: word(8..16),
            length: word(16..24),
        }
    }

    /// Whole pages, and an end that can be an address.
    fn span(self) -> io::Result<Span> {
        let end = self.address.checked_add(self.length);
        let whole = self.address.is_multiple_of(PAGE) && self.length.is_multiple_of(PAGE);
        match end {
            Some(end) if whole && self.length > 0 => Ok(Span {
                start: self.address,
                end,
            }),
            _ => Err(invalid("a span that can't be")),
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Arrival {
    /// For what is followed by data, only what goes before it.
    pub fn head(&self) -> [u8; HEAD] {
        let (kind, task, address, length) = match self {
            Self::Pages {
                task,
                address,
                bytes,
            } => (PAGES, *task, *address, bytes.len() as u64),
            Self::Zero { task, span } => (ZERO, *task, span.start, span.end - span.start),
            Self::Lost => (LOST, 0, 0, 0),
        };
        Head {
            kind,
            task,
            address,
            length,
        }
        .encode()
    }
}

impl Word {
    /// The length of each.
    pub const LENGTH: usize = HEAD;

    pub fn encode(self) -> [u8; HEAD] {
        let (kind, task, address, length) = match self {
            Self::Missing { task, span } => (MISSING, task, span.start, span.end - span.start),
            Self::Told => (TOLD, 0, 0, 0),
            Self::Want { task, address } => (WANT, task, address, PAGE),
            Self::Got { bytes } => (GOT, 0, 0, bytes),
            Self::Whole => (WHOLE, 0, 0, 0),
        };
        Head {
            kind,
            task,
            address,
            length,
        }
        .encode()
    }

    pub fn decode(bytes: &[u8; HEAD]) -> io::Result<Self> {
        let head = Head::decode(bytes);
        match head.kind {
            MISSING => Ok(Self::Missing {
                task: head.task,
                span: head.span()?,
            }),
            TOLD => Ok(Self::Told),
            WANT => Ok(Self::Want {
                task: head.task,
                address: head.address,
            }),
            GOT => Ok(Self::Got { bytes: head.length }),
            WHOLE => Ok(Self::Whole),
            _ => Err(invalid("a word that this release does not know")),
        }
    }
}

/// Makes arrivals of what comes in pieces.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// An error: nothing that follows can be understood.
    pub fn take(&mut self, bytes: &[u8], found: &mut Vec<Arrival>) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = self.buffer[at..].first_chunk::<HEAD>() {
            let head = Head::decode(head);
            let data = match head.kind {
                PAGES if head.length <= MOST => head.length as usize,
                PAGES => return Err(invalid("more pages than a frame holds")),
                _ => 0,
            };
            let from = at + HEAD;
            let Some(data) = self.buffer.get(from..from + data) else {
                break;
            };
            found.push(match head.kind {
                PAGES => Arrival::Pages {
                    task: head.task,
                    address: head.span()?.start,
                    bytes: data.to_vec(),
                },
                ZERO => Arrival::Zero {
                    task: head.task,
                    span: head.span()?,
                },
                LOST => Arrival::Lost,
                _ => return Err(invalid("a kind that this release does not know")),
            });
            at = from + data.len();
        }
        self.buffer.drain(..at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_whole_however_they_come() {
        let pages = Arrival::Pages {
            task: 7,
            address: 0x7000,
            bytes: vec![5; 8192],
        };
        let zero = Arrival::Zero {
            task: 7,
            span: Span {
                start: 0x1000,
                end: 0x3000,
            },
        };
        let mut wire = pages.head().to_vec();
        wire.extend([5; 8192]);
        wire.extend(zero.head());
        wire.extend(Arrival::Lost.head());
        for step in [1, 23, 24, 25, 4096, wire.len()] {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for piece in wire.chunks(step) {
                decoder.take(piece, &mut found).unwrap();
            }
            assert_eq!(found, [pages.clone(), zero.clone(), Arrival::Lost]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let head = |kind, address, length| {
            Head {
                kind,
                task: 1,
                address,
                length,
            }
            .encode()
        };
        for bad in [
            head(PAGES, 0x1000, MOST + PAGE),
            head(PAGES, 0x1000, 0),
            head(ZERO, 0x1001, PAGE),
            head(ZERO, u64::MAX - PAGE + 1, PAGE),
            head(99, 0x1000, PAGE),
        ] {
            assert!(Decoder::default().take(&bad, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn words_come_back_as_they_were() {
        for word in [
            Word::Missing {
                task: 3,
                span: Span {
                    start: PAGE,
                    end: 9 * PAGE,
                },
            },
            Word::Told,
            Word::Want {
                task: 3,
                address: 0x5000,
            },
            Word::Got { bytes: 12 },
            Word::Whole,
        ] {
            assert_eq!(Word::decode(&word.encode()).unwrap(), word);
        }
        assert!(Word::decode(&[0; HEAD]).is_err());
    }
}
