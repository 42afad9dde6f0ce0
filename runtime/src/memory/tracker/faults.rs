//! By a userfaultfd in the process (`WP_ASYNC`, Linux 6.7 or newer) and `PAGEMAP_SCAN`: the process
//! is stopped only when mappings are new, and pages that are not written cost nothing.

use std::{io, os::fd::AsFd};

use nix::libc;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::populated;
use crate::memory::{
    maps::{self, Span},
    sys::{Fault, Kind, Region, Scan, pidfd_getfd, with_stopped},
};

const UFFD_USER_MODE_ONLY: u64 = 1;

/// A userfaultfd in a process that knows nothing of it. Dropped, the process's writes are not
/// tracked any more, which costs a walk of its page tables: not before a dump is over.
pub struct Faults {
    fault: Fault,
    scan: Scan,
}

impl Faults {
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
    fn catch_up(&self, pid: i32) -> io::Result<()> {
        with_stopped(pid, |_| register(pid, &self.fault))
    }

    /// The populated pages of all mappings. Those of a mapping that is not tracked yet count as
    /// written, and it is tracked from now on.
    pub fn take(&mut self, pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
        let mut found = Vec::new();
        let failed = self.take_all(spans, &mut found)?;
        if failed.is_empty() {
            return Ok(found);
        }
        self.catch_up(pid)?;
        let trusted: Vec<Span> = spans
            .iter()
            .filter(|span| !failed.contains(span))
            .copied()
            .collect();
        // What joined a mapping that was taken already is now one with it.
        let inside = |span: &Span| {
            trusted
                .iter()
                .any(|known| known.start <= span.start && span.end <= known.end)
        };
        let mut due = maps::carried(pid)?;
        due.retain(|span| !inside(span));
        let mut second = Vec::new();
        // Those that fail once more have a userfaultfd of the program's own, or are newer still.
        let untracked = self.take_all(&due, &mut second)?;
        second.extend(populated(pid, &untracked)?);
        for region in second {
            found.extend(marked(region, &trusted));
        }
        Ok(found)
    }

    /// Takes every span; answers those that are not tracked. After another error some pages may be
    /// protected and not be told: all of them count as written then.
    fn take_all(&mut self, spans: &[Span], found: &mut Vec<Region>) -> io::Result<Vec<Span>> {
        let mut failed = Vec::new();
        for span in spans {
            let before = found.len();
            match self.scan.populated(*span, Kind::Protect, found) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    found.truncate(before);
                    failed.push(*span);
                }
                other => other?,
            }
        }
        Ok(failed)
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

/// A scan that fails may have protected some pages and told none: outside of what was taken well
/// all pages count as written.
fn marked(region: Region, trusted: &[Span]) -> Vec<Region> {
    let mut parts = Vec::new();
    let mut start = region.span.start;
    let mut part = |start: u64, end: u64, written: bool| {
        if start < end {
            let span = Span { start, end };
            parts.push(Region { span, written });
        }
    };
    for known in trusted {
        let from = known.start.clamp(start, region.span.end);
        let to = known.end.clamp(start, region.span.end);
        if from < to {
            part(start, from, true);
            part(from, to, region.written);
            start = to;
        }
    }
    part(start, region.span.end, true);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE;

    fn span(start: u64, end: u64) -> Span {
        Span {
            start: start * PAGE,
            end: end * PAGE,
        }
    }

    #[test]
    fn only_what_was_taken_well_is_believed_to_be_unwritten() {
        let trusted = [span(10, 20), span(30, 40)];
        let cut = |start, end| -> Vec<(u64, u64, bool)> {
            let region = Region {
                span: span(start, end),
                written: false,
            };
            marked(region, &trusted)
                .iter()
                .map(|r| (r.span.start / PAGE, r.span.end / PAGE, r.written))
                .collect()
        };
        assert_eq!(cut(12, 15), [(12, 15, false)]);
        assert_eq!(cut(22, 25), [(22, 25, true)]);
        assert_eq!(
            cut(5, 45),
            [
                (5, 10, true),
                (10, 20, false),
                (20, 30, true),
                (30, 40, false),
                (40, 45, true)
            ]
        );
    }
}
