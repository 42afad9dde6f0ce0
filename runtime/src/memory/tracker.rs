//! Which carried pages of one process were written since they were last asked for.

use std::{io, os::fd::AsFd};

use nix::libc;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    maps::Span,
    sys::{Fault, Kind, Region, Scan, pidfd_getfd, with_stopped},
};

const UFFD_USER_MODE_ONLY: u64 = 1;

/// A userfaultfd in a process that knows nothing of it. Dropped, the process's writes are not
/// tracked any more, which costs a walk of its page tables: not before a dump is over.
pub struct Tracker {
    fault: Fault,
    scan: Scan,
}

impl Tracker {
    /// Stops the process for a fraction of a millisecond and has it make the descriptor.
    pub fn attach(pid: i32) -> io::Result<Self> {
        let id = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        let pidfd = pidfd_open(id, PidfdFlags::empty())?;
        let fd = with_stopped(pid, |stopped| {
            let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64 | UFFD_USER_MODE_ONLY;
            let theirs = stopped.syscall(libc::SYS_userfaultfd, [flags, 0, 0])?;
            let ours = pidfd_getfd(pidfd.as_fd(), theirs as i32);
            stopped.syscall(libc::SYS_close, [theirs as u64, 0, 0])?;
            ours
        })?;
        let fault = Fault::new(fd);
        fault.track_writes()?;
        Ok(Self {
            fault,
            scan: Scan::open(pid)?,
        })
    }

    /// Adds the populated pages of a mapping, and protects those that were written. A mapping
    /// that is new, or was moved, counts as written, and is tracked from now on.
    pub fn take(&mut self, span: Span, found: &mut Vec<Region>) -> io::Result<()> {
        let before = found.len();
        match self.scan.populated(span, Kind::Protect, found) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                found.truncate(before);
                self.fault.register(span)?;
                self.scan.populated(span, Kind::Protect, found)
            }
            other => other,
        }
    }
}
