//! What goes over the socket between whoever looks into a container and the process that holds
//! its other end: a kind, a length, and so many bytes.
//!
//! ```text
//! byte   kind
//! u32    length, big-endian, at most 64 KiB
//! bytes  payload
//! ```

use std::io;

use godwit_types::{CommandFailure, MigrationId, TerminalSize};

/// The longest payload.
pub const PAYLOAD: usize = 64 << 10;
const HEADER: usize = 5;

/// Towards the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Data(Vec<u8>),
    /// Standard input has ended.
    End,
    Size(TerminalSize),
    Signal(i32),
    /// The other side goes, and what it started is left to itself.
    Detach,
}

/// From the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Started,
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// How it ended: the last frame.
    Exit(i32),
    /// It was ended, since its container leaves this host: the last frame.
    Moved(MigrationId),
    /// It never began: the only frame.
    Failed(CommandFailure),
    /// So many bytes of input have reached the container.
    Taken(u64),
}

/// What can be sent.
pub trait Frame: Sized {
    fn parts(&self) -> (u8, Vec<u8>);
    fn read(kind: u8, payload: &[u8]) -> io::Result<Self>;

    /// As it goes over the socket.
    fn encode(&self) -> Vec<u8> {
        let (kind, payload) = self.parts();
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.push(kind);
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(payload);
        bytes
    }
}

impl Frame for Input {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Data(data) => (b'i', data.clone()),
            Self::End => (b'e', Vec::new()),
            Self::Size(size) => {
                let [a, b] = size.rows.to_be_bytes();
                let [c, d] = size.columns.to_be_bytes();
                (b'w', vec![a, b, c, d])
            }
            Self::Signal(signal) => (b's', signal.to_be_bytes().to_vec()),
            Self::Detach => (b'd', Vec::new()),
        }
    }

    fn read(kind: u8, payload: &[u8]) -> io::Result<Self> {
        match (kind, payload) {
            (b'i', data) => Ok(Self::Data(data.to_vec())),
            (b'e', []) => Ok(Self::End),
            (b'w', &[a, b, c, d]) => Ok(Self::Size(TerminalSize {
                rows: u16::from_be_bytes([a, b]),
                columns: u16::from_be_bytes([c, d]),
            })),
            (b's', &[a, b, c, d]) => Ok(Self::Signal(i32::from_be_bytes([a, b, c, d]))),
            (b'd', []) => Ok(Self::Detach),
            _ => Err(unknown(kind)),
        }
    }
}

impl Frame for Output {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Started => (b'S', Vec::new()),
            Self::Stdout(data) => (b'1', data.clone()),
            Self::Stderr(data) => (b'2', data.clone()),
            Self::Exit(code) => (b'X', code.to_be_bytes().to_vec()),
            Self::Moved(migration) => (b'M', migration.as_str().as_bytes().to_vec()),
            Self::Failed(failure) => {
                let mut failure = failure.clone();
                // Never over the limit, whatever a library has to say.
                failure.message = failure.message.chars().take(4000).collect();
                (b'F', serde_json::to_vec(&failure).unwrap_or_default())
            }
            Self::Taken(count) => (b'T', count.to_be_bytes().to_vec()),
        }
    }

    fn read(kind: u8, payload: &[u8]) -> io::Result<Self> {
        match (kind, payload) {
            (b'S', []) => Ok(Self::Started),
            (b'1', data) => Ok(Self::Stdout(data.to_vec())),
            (b'2', data) => Ok(Self::Stderr(data.to_vec())),
            (b'X', &[a, b, c, d]) => Ok(Self::Exit(i32::from_be_bytes([a, b, c, d]))),
            (b'M', text) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Self::Moved)
                .ok_or_else(|| unknown(kind)),
            (b'F', json) => Ok(Self::Failed(serde_json::from_slice(json)?)),
            (b'T', payload) => match payload.try_into() {
                Ok(bytes) => Ok(Self::Taken(u64::from_be_bytes(bytes))),
                Err(_) => Err(unknown(kind)),
            },
            _ => Err(unknown(kind)),
        }
    }
}

fn unknown(kind: u8) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("frame of kind {kind:#x} can't be read"),
    )
}

/// Puts frames together from what comes in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn take<F: Frame>(&mut self) -> io::Result<Option<F>> {
        let Some((header, rest)) = self.bytes.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > PAYLOAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("frame of {length} bytes is too long"),
            ));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = F::read(header[0], payload)?;
        self.bytes.drain(..HEADER + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::FailureKind;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let inputs = [
            Input::Data(b"ls\n".to_vec()),
            Input::End,
            Input::Size(TerminalSize {
                rows: 24,
                columns: 80,
            }),
            Input::Signal(15),
            Input::Detach,
        ];
        let bytes: Vec<u8> = inputs.iter().flat_map(Frame::encode).collect();
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(3) {
            decoder.push(piece);
            while let Some(frame) = decoder.take::<Input>().unwrap() {
                out.push(frame);
            }
        }
        assert_eq!(out, inputs);
        for frame in [
            Output::Started,
            Output::Stdout(vec![0, 255]),
            Output::Stderr(Vec::new()),
            Output::Exit(-1),
            Output::Moved(MigrationId::from_bytes([7; 8])),
            Output::Failed(CommandFailure::new(FailureKind::CommandNotFound, "x")),
            Output::Taken(1 << 40),
        ] {
            let mut decoder = Decoder::default();
            decoder.push(&frame.encode());
            assert_eq!(decoder.take::<Output>().unwrap(), Some(frame));
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_before_memory_is_taken() {
        let mut decoder = Decoder::default();
        decoder.push(&[b'i', 0xff, 0, 0, 0]);
        assert!(decoder.take::<Input>().is_err());
        let mut decoder = Decoder::default();
        decoder.push(&[b'?', 0, 0, 0, 0]);
        assert!(decoder.take::<Input>().is_err());
    }
}
