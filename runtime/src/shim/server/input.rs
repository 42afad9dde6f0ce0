//! A container's standard input: the writing end of a pipe, or its terminal's master.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use godwit_types::TerminalSize;
use rustix::{
    fs::{OFlags, fcntl_setfl, fstat},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
};
use serde::{Deserialize, Serialize};

use crate::{criu::pipe_key, sys};

/// Among CRIU's images: what was in the pipe, and whether it has ended.
const FILE: &str = "stdin.json";
/// No pipe of the kernel holds more, by default: an archive may not bring more.
const LIMIT: u64 = 4 << 20;

#[derive(Default)]
pub struct Input {
    /// None: there is none, or it has ended.
    target: Option<OwnedFd>,
    /// What CRIU calls the pipe. None: it is none.
    key: Option<String>,
    terminal: bool,
    /// Taken, and not written yet.
    pending: Vec<u8>,
    ends: bool,
}

/// See [`FILE`].
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    unread: String,
    ended: bool,
}

impl Input {
    /// A pipe, and its reading end for the container.
    pub fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        let input = Self {
            key: Some(pipe_key(fstat(&reader)?.st_ino)),
            target: Some(writer),
            ..Self::default()
        };
        Ok((input, reader))
    }

    pub fn terminal(master: OwnedFd) -> Self {
        Self {
            target: Some(master),
            terminal: true,
            ..Self::default()
        }
    }

    /// What descriptor 0 of the container is to CRIU.
    pub fn key(&self) -> String {
        self.key.clone().unwrap_or_else(|| "/dev/null".to_owned())
    }

    /// Whether anything can come in.
    pub fn is_open(&self) -> bool {
        self.target.is_some() && !self.ends
    }

    /// Whether more can be taken now.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Where something waits to be written.
    pub fn blocked(&self) -> Option<BorrowedFd<'_>> {
        let target = self.target.as_ref()?;
        (!self.pending.is_empty()).then(|| target.as_fd())
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_open() {
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Nothing more will come. A terminal's input ends by what is typed.
    pub fn end(&mut self) {
        self.ends |= !self.terminal;
        self.write();
    }

    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        match &self.target {
            Some(master) if self.terminal => {
                sys::set_terminal_size(master.as_fd(), size.rows, size.columns)
            }
            _ => Ok(()),
        }
    }

    /// Writes what can be written without waiting.
    pub fn write(&mut self) {
        while let Some(target) = &self.target {
            if self.pending.is_empty() {
                break;
            }
            match write(target, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody will ever read it.
                Err(_) => {
                    self.pending.clear();
                    self.target = None;
                }
            }
        }
        if self.ends && self.pending.is_empty() {
            self.target = None;
        }
    }

    /// Of a container whose tasks are frozen: what they have not read goes with them. It is put
    /// back, since they may go on here.
    pub fn keep(&self, images: &Path) -> io::Result<()> {
        if self.key.is_none() {
            return Ok(());
        }
        let mut unread = Vec::new();
        if let Some(writer) = &self.target {
            // The same pipe, by its other end.
            let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
            let reader = File::open(path)?;
            fcntl_setfl(&reader, OFlags::NONBLOCK)?;
            let mut buffer = [0; 64 << 10];
            while let Ok(count @ 1..) = read(&reader, &mut buffer) {
                unread.extend_from_slice(&buffer[..count]);
            }
            let mut back = unread.as_slice();
            while !back.is_empty() {
                back = &back[write(writer, back)?..];
            }
        }
        let kept = Kept {
            unread: hex::encode(unread),
            ended: self.target.is_none(),
        };
        std::fs::write(images.join(FILE), serde_json::to_vec(&kept)?)
    }

    /// Of a container that came: what it had not read where it was.
    pub fn take_up(&mut self, images: &Path) -> io::Result<()> {
        let path = images.join(FILE);
        if self.key.is_none() || !path.exists() {
            return Ok(());
        }
        if path.metadata()?.len() > LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too much unread input",
            ));
        }
        let kept: Kept = serde_json::from_slice(&std::fs::read(path)?)?;
        let bytes = hex::decode(kept.unread)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.push(&bytes);
        self.ends = kept.ended;
        self.write();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_was_not_read_is_kept_here_and_comes_there() {
        let images = tempfile::tempdir().unwrap();
        let (mut here, reader) = Input::pipe().unwrap();
        here.push(b"typed\nahead");
        here.write();
        assert!(here.is_idle() && here.is_open());
        here.keep(images.path()).unwrap();

        let (mut there, arrived) = Input::pipe().unwrap();
        there.take_up(images.path()).unwrap();
        there.push(b" and on");
        there.end();
        let mut text = String::new();
        File::from(arrived).read_to_string(&mut text).unwrap();
        assert_eq!(text, "typed\nahead and on");

        here.end();
        text.clear();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "typed\nahead");
        here.keep(images.path()).unwrap();
        let (mut ended, arrived) = Input::pipe().unwrap();
        ended.take_up(images.path()).unwrap();
        text.clear();
        File::from(arrived).read_to_string(&mut text).unwrap();
        assert_eq!(text, "", "its end moves, too");
    }

    #[test]
    fn a_full_pipe_waits_and_one_that_nobody_reads_ends() {
        let (mut input, reader) = Input::pipe().unwrap();
        input.push(&vec![b'x'; 1 << 20]);
        input.write();
        assert!(input.blocked().is_some());
        drop(reader);
        input.write();
        assert!(input.is_idle() && !input.is_open());
    }
}
