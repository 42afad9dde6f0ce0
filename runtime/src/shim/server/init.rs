//! The container's init as our child: noticed when it ends, signalled without a race.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};

use godwit_types::Exit;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};

pub struct Init {
    pid: Pid,
    /// Readable once it has ended.
    pidfd: OwnedFd,
}

impl Init {
    pub fn new(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "pid 0"))?;
        Ok(Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {signal}"))
        })?;
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Whether it has ended, reaped or not, traced or not.
    pub fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// How it ended; None: it runs, or a tracer has not let go of it.
    pub fn ended(&self) -> Option<Exit> {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => {
                let code = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
                let at = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                Some(Exit {
                    code,
                    at_ms: at.as_millis() as u64,
                })
            }
            _ => None,
        }
    }

    /// Waits until it has ended: after a SIGKILL.
    pub fn reap(&self) {
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}
