//! Where pages come from that were not here when the container was resumed: the agent connects,
//! is told what is missing, and writes what it is sent. See [`feed`](crate::memory::feed) for the
//! messages.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use crate::memory::feed::{Arrival, Decoder, Word};

/// The socket, there as long as the pager is.
pub struct Feeds {
    listener: UnixListener,
    path: PathBuf,
    feed: Option<Feed>,
}

struct Feed {
    stream: UnixStream,
    decoder: Decoder,
    out: VecDeque<u8>,
}

impl Feeds {
    pub fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            feed: None,
        })
    }

    /// What to wait for, and whether it may be written to at last.
    pub fn sources(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let feed = self.feed.as_ref();
        let feed = feed.map(|feed| (feed.stream.as_fd(), !feed.out.is_empty()));
        [(self.listener.as_fd(), false)].into_iter().chain(feed)
    }

    /// Whether another agent, or the same once more, has connected: it takes the place of the one
    /// before it, and wants to hear everything.
    pub fn accept(&mut self) -> io::Result<bool> {
        match self.listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                self.feed = Some(Feed {
                    stream,
                    decoder: Decoder::default(),
                    out: VecDeque::new(),
                });
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What has come whole. A connection that ended, or that talks nonsense, is forgotten: the
    /// next one begins anew.
    pub fn arrivals(&mut self) -> Vec<Arrival> {
        let Some(feed) = &mut self.feed else {
            return Vec::new();
        };
        let mut buffer = [0; 64 << 10];
        let (mut found, mut over) = (Vec::new(), false);
        // Not for ever: faults wait meanwhile.
        for _ in 0..8 {
            match feed.stream.read(&mut buffer) {
                Ok(0) => over = true,
                Ok(count) => match feed.decoder.take(&buffer[..count], &mut found) {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "agent is not understood");
                        over = true;
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => over = true,
            }
            break;
        }
        if over {
            self.feed = None;
        }
        found
    }

    /// Says it to who is connected, if anybody is.
    pub fn say(&mut self, word: Word) {
        if let Some(feed) = &mut self.feed {
            feed.out.extend(word.encode());
        }
    }

    pub fn flush(&mut self) {
        let Some(feed) = &mut self.feed else { return };
        while !feed.out.is_empty() {
            match feed.stream.write(feed.out.as_slices().0) {
                Ok(count) if count > 0 => drop(feed.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.feed = None;
                    return;
                }
            }
        }
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        // It may be gone with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}
