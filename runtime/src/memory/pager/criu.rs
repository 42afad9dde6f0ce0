//! What CRIU says on its socket.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg,
};

use crate::memory::sys::Fault;

const FINISHED: i32 = 0x5253_5446;

pub enum Message {
    /// A restored task's userfaultfd, by its pid in the container.
    Task { task: u32, fault: Fault },
    /// A task that has ended already, and has no memory.
    Zombie,
    /// Every task is restored, and runs.
    Finished,
    /// CRIU is gone.
    Closed,
}

pub struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { stream })
    }

    /// Waits for a whole message: its parts are sent one right after the other.
    pub fn next(&self) -> io::Result<Message> {
        let mut word = [0u8; 4];
        let (read, _) = recv(&self.stream, &mut word, RecvFlags::WAITALL)?;
        if read == 0 {
            return Ok(Message::Closed);
        }
        if read < 4 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match i32::from_ne_bytes(word) {
            FINISHED => Ok(Message::Finished),
            ..0 => Ok(Message::Zombie),
            task => Ok(Message::Task {
                task: task as u32,
                fault: Fault::new(self.descriptor()?),
            }),
        }
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        let mut byte = [0u8; 1];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut byte)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("descriptor did not fit"));
        }
        control
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("no descriptor came"))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
