//! `criu swrk`: CRIU as our child, spoken to over a socket pair in its own RPC messages.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use protobuf::{Message, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{Criu_opts, Criu_req, Criu_req_type, Criu_resp};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags,
        SocketFlags, SocketType, recvmsg, send, socketpair,
    },
    process::{Pid, PidfdFlags, pidfd_open, setpriority_process},
};
use serde::{Deserialize, Serialize};

use crate::{
    memory::{HIDDEN_VARIABLE, HiddenTable, SMAPS_VARIABLE},
    sys,
};

/// The largest message CRIU sends.
const MESSAGE: usize = 256 << 10;
/// The longest silence of a CRIU that works: dumping tens of gigabytes takes long.
const SILENCE: Duration = Duration::from_secs(300);

/// The nice value before which there is none.
const FIRST: i32 = -20;
/// Where a shell would look that is given no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which CRIU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub path: PathBuf,
    /// Preloaded into it; None: nothing.
    pub interpose: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum CriuError {
    #[error("criu `{path}` can't be started")]
    Spawn {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no connection to criu")]
    Socket(#[source] io::Error),
    #[error("criu's answer can't be read")]
    Answer(#[source] protobuf::Error),
    #[error("criu ended without an answer ({0})")]
    Died(String),
    #[error("criu was silent for {} s and was killed", SILENCE.as_secs())]
    Silent,
    #[error("{what} failed{}{detail}", if detail.is_empty() { "" } else { ": " })]
    Failed { what: &'static str, detail: String },
}

/// What CRIU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It waits for our answer at this point.
    Notify(String),
    /// It is through. `pid` of the restored root task, for a restore.
    Done {
        success: bool,
        pid: Option<i32>,
        message: String,
    },
}

/// How CRIU is started.
pub struct Launch<'a> {
    pub program: &'a Program,
    /// Searched first for the programs that it runs.
    pub tools: Option<&'a Path>,
    /// The descriptors that it must have under their own numbers.
    pub inherit: &'a [BorrowedFd<'a>],
    /// Names the pages that it must not see.
    pub hidden: Option<&'a HiddenTable>,
    /// Where it finds the mappings of large tasks.
    pub smaps: Option<&'a Path>,
}

/// A running `criu swrk`. Dropped while it waits, it is killed: what that means for the tasks it
/// holds is decided by the cgroup's freezer, not here.
pub struct Swrk {
    child: Child,
    socket: OwnedFd,
    notified: Option<i32>,
    /// What came with the last notification.
    descriptor: Option<OwnedFd>,
}

impl Swrk {
    pub fn spawn(launch: Launch<'_>) -> Result<Self, CriuError> {
        let Launch {
            program,
            tools,
            inherit,
            hidden,
            smaps,
        } = launch;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| CriuError::Socket(errno.into()))?;
        let mut command = Command::new(&program.path);
        command
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(library) = &program.interpose {
            command.env("LD_PRELOAD", library);
        }
        if let Some(tools) = tools {
            let rest = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
            let all = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&rest));
            // An error: it has a colon in its name.
            if let Ok(path) = std::env::join_paths(all) {
                command.env("PATH", path);
            }
        }
        if let Some(dir) = smaps {
            command.env(SMAPS_VARIABLE, dir);
        }
        let hidden = hidden.map(HiddenTable::as_fd);
        if let Some(fd) = hidden {
            command.env(HIDDEN_VARIABLE, fd.as_raw_fd().to_string());
        }
        let kept = || {
            inherit
                .iter()
                .copied()
                .chain([theirs.as_fd()])
                .chain(hidden)
        };
        for fd in kept() {
            sys::set_cloexec(fd, false).map_err(CriuError::Socket)?;
        }
        let child = command.spawn();
        for fd in kept() {
            sys::set_cloexec(fd, true).map_err(CriuError::Socket)?;
        }
        let child = child.map_err(|source| CriuError::Spawn {
            path: program.path.clone(),
            source,
        })?;
        // A container stands still while it works, and waits behind whatever else runs here. What
        // it restores does not keep this: CRIU gives each task the nice value that it had. An
        // error: the privilege is missing, and it works as well as others do.
        let _ = setpriority_process(Some(Pid::from_child(&child)), FIRST);
        Ok(Self {
            child,
            socket: ours,
            notified: None,
            descriptor: None,
        })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The pid that the last notification named: of the dumped or the restored root task.
    pub fn notified_pid(&self) -> Option<i32> {
        self.notified
    }

    /// The descriptor that came with the last notification.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    pub fn dump(&mut self, options: Criu_opts) -> Result<(), CriuError> {
        self.request(Criu_req_type::DUMP, options)
    }

    pub fn restore(&mut self, options: Criu_opts) -> Result<(), CriuError> {
        self.request(Criu_req_type::RESTORE, options)
    }

    fn request(&mut self, kind: Criu_req_type, options: Criu_opts) -> Result<(), CriuError> {
        let mut request = Criu_req::new();
        request.set_type(kind);
        request.opts = MessageField::some(options);
        self.send(&request)
    }

    /// Lets CRIU go on from a notification, or makes it undo what it did.
    pub fn answer(&mut self, go_on: bool) -> Result<(), CriuError> {
        let mut request = Criu_req::new();
        request.set_type(Criu_req_type::NOTIFY);
        request.set_notify_success(go_on);
        self.send(&request)
    }

    fn send(&mut self, request: &Criu_req) -> Result<(), CriuError> {
        let bytes = request.write_to_bytes().map_err(CriuError::Answer)?;
        // A CRIU that died must be an error of ours, not a SIGPIPE.
        match send(&self.socket, &bytes, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(self.died()),
            Err(errno) => Err(CriuError::Socket(errno.into())),
        }
    }

    /// Waits for what CRIU says next.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator would end; this is a conversation"
    )]
    pub fn next(&mut self) -> Result<Event, CriuError> {
        let timeout = Timespec {
            tv_sec: SILENCE.as_secs() as i64,
            tv_nsec: 0,
        };
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    return Err(CriuError::Silent);
                }
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(CriuError::Socket(errno.into())),
            }
        }
        let mut received = vec![0; MESSAGE];
        match receive(self.socket.as_fd(), &mut received) {
            Ok((count, descriptor)) => {
                received.truncate(count);
                self.descriptor = descriptor;
            }
            Err(rustix::io::Errno::CONNRESET) => received.clear(),
            Err(errno) => return Err(CriuError::Socket(errno.into())),
        }
        if received.is_empty() {
            return Err(self.died());
        }
        let answer = Criu_resp::parse_from_bytes(&received).map_err(CriuError::Answer)?;
        if answer.type_() == Criu_req_type::NOTIFY {
            if answer.notify.has_pid() {
                self.notified = Some(answer.notify.pid());
            }
            return Ok(Event::Notify(answer.notify.script().to_owned()));
        }
        let success = answer.success();
        if !success || matches!(answer.type_(), Criu_req_type::DUMP | Criu_req_type::RESTORE) {
            let pid = answer.restore.as_ref().map(|restore| restore.pid());
            let message = answer.cr_errmsg().trim().to_owned();
            return Ok(Event::Done {
                success,
                pid,
                message,
            });
        }
        Err(CriuError::Died(format!(
            "unexpected answer {:?}",
            answer.type_()
        )))
    }

    fn died(&mut self) -> CriuError {
        let status = self
            .child
            .wait()
            .map_or_else(|error| error.to_string(), |s| s.to_string());
        CriuError::Died(status)
    }

    /// Whether [`Swrk::next`] would not wait.
    pub fn is_ready(&self) -> bool {
        readable(self.socket.as_fd())
    }

    /// Readable when it has something to say.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// After [`Event::Done`], for one that nobody waits for: the kernel takes its namespaces down
    /// first, which lasts longer than all that it did before.
    pub fn leave(self) -> io::Result<Leaving> {
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Leaving { pidfd, _criu: self })
    }

    /// After [`Event::Done`]: waits until the process is gone.
    pub fn finish(mut self) {
        let _ = self.child.wait();
    }
}

/// A CRIU that is through, and has not ended yet. Dropped, it is waited for.
pub struct Leaving {
    pidfd: OwnedFd,
    _criu: Swrk,
}

impl Leaving {
    /// Readable once it has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn has_ended(&self) -> bool {
        readable(self.pidfd.as_fd())
    }
}

/// A message, and the descriptor that it may carry.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), rustix::io::Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [io::IoSliceMut::new(buffer)];
    let message = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found = descriptors.last().or(found);
        }
    }
    Ok((message.bytes, found))
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    matches!(poll(&mut fds, Some(&now)), Ok(1))
}

impl Drop for Swrk {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
