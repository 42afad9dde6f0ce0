//! One request and its reply.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use super::super::protocol::{LINE, Reply, Request};

/// A client that does not send or read its line in this time is given up: the loop has only one
/// thread.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    pub fn request(&mut self) -> io::Result<Request> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        self.stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&self.stream).take(LINE as u64)).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// For a conversation that goes on.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// A client that has gone away misses it: it asks for the state when it is back.
    pub fn reply(&mut self, reply: &Reply) {
        let written = serde_json::to_vec(reply)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.stream.write_all(&line)
            });
        if let Err(error) = written {
            tracing::debug!(%error, "reply not sent");
        }
    }

    /// False when the client has hung up.
    pub fn is_open(&self) -> bool {
        let mut byte = [0];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        matches!(
            rustix::net::recv(&self.stream, &mut byte, flags),
            Err(rustix::io::Errno::AGAIN)
        )
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
