//! The socket over which libcontainer hands out the master of a new pseudo-terminal.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::{FdFlags, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

/// Listens until the terminal has come.
pub struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// In this directory. Its path may be longer than a socket's may be: it is bound from inside,
    /// by a process with one thread.
    pub fn listen(dir: &Path) -> io::Result<Self> {
        const NAME: &str = "console.sock";
        let path = dir.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let before = std::env::current_dir()?;
        std::env::set_current_dir(dir)?;
        let listener = UnixListener::bind(NAME);
        std::env::set_current_dir(before)?;
        Ok(Self {
            listener: listener?,
            path,
        })
    }

    /// What libcontainer connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master, once libcontainer is through. Never blocks a reader of it.
    pub fn take(self) -> io::Result<OwnedFd> {
        self.listener.set_nonblocking(true)?;
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        let _ = fs::remove_file(&self.path);
        let master = receive(stream.as_fd())?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, "no terminal was handed out")
        })?;
        fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR)?;
        Ok(master)
    }
}

/// The first descriptor that comes with a message.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut data = [0_u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [io::IoSliceMut::new(&mut data)];
    recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                fcntl_setfd(&descriptor, FdFlags::CLOEXEC)?;
                found.get_or_insert(descriptor);
            }
        }
    }
    Ok(found)
}
