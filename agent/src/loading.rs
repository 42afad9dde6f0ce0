//! An image archive that comes as a stream, as something the image store can read.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Chunks between the connection and the loading thread.
const AHEAD: usize = 16;

/// A piece of the archive. Its end is said: a stream that breaks off must not look like one.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    End,
}

/// Reads on a blocking thread what is sent from async code.
#[derive(Debug)]
pub struct Archive {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// The two ends of an archive.
pub fn archive() -> (mpsc::Sender<Piece>, Archive) {
    let (sender, pieces) = mpsc::channel(AHEAD);
    (
        sender,
        Archive {
            pieces,
            current: Bytes::new(),
            ended: false,
        },
    )
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the archive broke off",
                    ));
                }
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_ends_only_where_it_is_said() {
        let (sender, mut archive) = archive();
        sender
            .blocking_send(Piece::Data(Bytes::from_static(b"ab")))
            .unwrap();
        sender
            .blocking_send(Piece::Data(Bytes::from_static(b"c")))
            .unwrap();
        sender.blocking_send(Piece::End).unwrap();
        let mut all = Vec::new();
        archive.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");

        let (sender, mut archive) = super::archive();
        sender
            .blocking_send(Piece::Data(Bytes::from_static(b"ab")))
            .unwrap();
        drop(sender);
        assert!(archive.read_to_end(&mut all).is_err());
    }
}
