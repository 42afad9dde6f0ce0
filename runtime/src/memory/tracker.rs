//! Which carried pages of one process were written since they were last asked for.

use std::{io, os::fd::AsFd};

use nix::libc;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{
    maps::{self, Span},
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
    /// Stops the process for a moment and has it make the descriptor; every carried mapping is
    /// tracked from then on.
    pub fn attach(pid: i32) -> io::Result<Self> {
        let id = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        let pidfd = pidfd_open(id, PidfdFlags::empty())?;
        let fault = with_stopped(pid, |stopped| {
            let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64 | UFFD_USER_MODE_ONLY;
            let theirs = stopped.syscall(libc::SYS_userfaultfd, [flags, 0, 0])?;
            let ours = pidfd_getfd(pidfd.as_fd(), theirs as i32);
            stopped.syscall(libc::SYS_close, [theirs as u64, 0, 0])?;
            let fault = Fault::new(ours?);
            fault.track_writes()?;
            register(pid, &fault)?;
            Ok(fault)
        })?;
        Ok(Self {
            fault,
            scan: Scan::open(pid)?,
        })
    }

    /// Tracks mappings that are new, or were moved.
    pub fn catch_up(&self, pid: i32) -> io::Result<()> {
        with_stopped(pid, |_| register(pid, &self.fault))
    }

    /// Adds the populated pages of a mapping, and protects those that were written. After an
    /// error some may be protected and not be told: all of them count as written then.
    pub fn take(&mut self, span: Span, found: &mut Vec<Region>) -> io::Result<()> {
        self.scan.populated(span, Kind::Protect, found)
    }
}

/// The process must be stopped: half a mapping that is registered becomes a mapping of its own,
/// and a program that then moves the whole of what it had mapped is refused.
fn register(pid: i32, fault: &Fault) -> io::Result<()> {
    for span in maps::carried(pid)? {
        match fault.register(span) {
            // The program has a userfaultfd of its own there, or can't write to it ever.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EINVAL | libc::EPERM)
                ) => {}
            other => other?,
        }
    }
    Ok(())
}
