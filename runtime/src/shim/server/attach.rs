//! Who types into the container: connections that carry its input. Its output is its log, which
//! they read elsewhere; so one who reads slowly holds up nobody.

use std::{
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use super::input::Input;
use crate::frames::{self, Decoder, Frame, Output};

/// More than these at once are refused.
const MOST: usize = 64;

pub struct Attached {
    all: Vec<Connection>,
    /// Whose bytes are on their way into the container.
    writer: Option<usize>,
    /// Input ends with the first that says so.
    once: bool,
}

struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    /// Bytes of it that have reached the container, or are about to.
    taken: u64,
    gone: bool,
}

impl Attached {
    pub fn new(once: bool) -> Self {
        Self {
            all: Vec::new(),
            writer: None,
            once,
        }
    }

    pub fn is_full(&self) -> bool {
        self.all.len() >= MOST
    }

    pub fn add(&mut self, stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(true)?;
        self.all.push(Connection {
            stream,
            decoder: Decoder::default(),
            taken: 0,
            gone: false,
        });
        Ok(())
    }

    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all.iter().map(|connection| connection.stream.as_fd())
    }

    /// Moves bytes as far as they go without waiting.
    pub fn serve(&mut self, input: &mut Input) {
        loop {
            input.write();
            if !input.is_idle() {
                return;
            }
            self.acknowledge();
            let next = (0..self.all.len()).find(|at| self.all[*at].advance(input, self.once));
            match next {
                Some(at) => self.writer = Some(at),
                None => break,
            }
        }
        self.all.retain(|connection| !connection.gone);
    }

    /// Tells the one whose bytes were written.
    fn acknowledge(&mut self) {
        let Some(connection) = self.writer.take().and_then(|at| self.all.get_mut(at)) else {
            return;
        };
        let frame = Output::Taken(connection.taken).encode();
        // A socket that can't take these few bytes has a reader that is gone.
        connection.gone |= connection.stream.write_all(&frame).is_err();
    }
}

impl Connection {
    /// Takes its next piece; whether there was one that is to be written now.
    fn advance(&mut self, input: &mut Input, once: bool) -> bool {
        loop {
            match self.decoder.take::<frames::Input>() {
                Ok(Some(frames::Input::Data(data))) => {
                    self.taken += data.len() as u64;
                    input.push(&data);
                    return true;
                }
                Ok(Some(frames::Input::End)) if once => input.end(),
                Ok(Some(frames::Input::Size(size))) => drop(input.resize(size)),
                Ok(Some(_)) => {}
                Ok(None) => {
                    if self.gone || !self.fill() {
                        return false;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "one who is attached speaks nonsense");
                    self.gone = true;
                    return false;
                }
            }
        }
    }

    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => {
                self.decoder.push(&buffer[..count]);
                return true;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.gone = true,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_arrives_and_is_acknowledged() {
        let (mut input, reader) = Input::pipe().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut attached = Attached::new(true);
        attached.add(theirs).unwrap();
        for frame in [
            frames::Input::Data(b"ab".to_vec()),
            frames::Input::Data(b"c".to_vec()),
            frames::Input::End,
        ] {
            ours.write_all(&frame.encode()).unwrap();
        }
        attached.serve(&mut input);
        let mut text = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
        drop(attached);
        let mut bytes = Vec::new();
        ours.read_to_end(&mut bytes).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let mut last = None;
        while let Some(frame) = decoder.take::<Output>().unwrap() {
            last = Some(frame);
        }
        assert_eq!(last, Some(Output::Taken(3)));
    }
}
