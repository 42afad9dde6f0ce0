//! Rounds over all tasks of a container: what changed since the last one, as frames.
//!
//! A session knows which pages the destination's store has. A round looks at every carried
//! mapping, sends what was written since it was last looked at, and takes back what is zero or
//! gone. The last round, when every task is stopped, makes the store equal to the memory that
//! is hidden from CRIU: what nothing tracks counts as written there.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs, io,
    time::{Duration, Instant},
};

use super::{
    Content, Frame, buffers,
    frame::cells,
    hidden::ended,
    maps::{self, Span},
    pages::PageSet,
    read,
    sys::{Region, same_memory},
    tracker::{self, Method, Tracker},
};

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoundStats {
    /// Pages of carried memory that are populated.
    pub populated: u64,
    /// Of these, written since the last round.
    pub written: u64,
    pub sent: u64,
    /// Not sent, since they held only zeros.
    pub zero: u64,
    pub took: Duration,
    pub processes: u32,
    /// Processes whose writes can't be tracked: all of their pages count as written each time.
    pub untracked: u32,
}

/// The memory of one container on its way.
#[derive(Default)]
pub struct Session {
    method: Method,
    tasks: BTreeMap<i32, Task>,
}

struct Task {
    /// Its pid inside the container.
    inner: u32,
    /// When it began, in clock ticks: a pid alone may name another process by now.
    began: u64,
    tracking: Tracking,
    /// What the destination has of it.
    sent: PageSet,
    /// Could not be read when it was due.
    unread: PageSet,
}

enum Tracking {
    By(Tracker),
    /// Not tried yet.
    None,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.tasks.is_empty() {
            buffers::forget();
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Running,
    Last,
    Leave,
}

/// Takes a frame. An error ends the round.
type Send<'a> = &'a mut dyn FnMut(Frame) -> io::Result<()>;

impl Session {
    /// Tracks writes in this way.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            tasks: BTreeMap::new(),
        }
    }

    /// One round while the tasks run. `pids` are the container's processes.
    pub fn round(&mut self, pids: &[i32], send: Send<'_>) -> io::Result<RoundStats> {
        self.pass(pids, Pass::Running, send)
    }

    /// The last round: every task is stopped.
    pub fn finish(&mut self, pids: &[i32], send: Send<'_>) -> io::Result<RoundStats> {
        self.pass(pids, Pass::Last, send)
    }

    /// The last round of a post-copy: every task is stopped, and what it would send is only named.
    pub fn leave(&mut self, pids: &[i32], send: Send<'_>) -> io::Result<RoundStats> {
        self.pass(pids, Pass::Leave, send)
    }

    fn pass(&mut self, pids: &[i32], pass: Pass, send: Send<'_>) -> io::Result<RoundStats> {
        let began = Instant::now();
        let mut stats = RoundStats {
            processes: pids.len() as u32,
            ..RoundStats::default()
        };
        let gone: Vec<i32> = self
            .tasks
            .keys()
            .filter(|pid| !pids.contains(pid))
            .copied()
            .collect();
        for pid in gone {
            self.forget(pid, send)?;
        }
        for pid in pids {
            match self.visit(*pid, pass, &mut stats, send) {
                // It ended while we looked.
                Err(error) if ended(&error) && pass == Pass::Running => self.forget(*pid, send)?,
                other => other?,
            }
        }
        stats.took = began.elapsed();
        Ok(stats)
    }

    fn forget(&mut self, pid: i32, send: Send<'_>) -> io::Result<()> {
        match self.tasks.remove(&pid) {
            Some(mut task) => task.withdraw(&[], send),
            None => Ok(()),
        }
    }

    fn visit(
        &mut self,
        pid: i32,
        pass: Pass,
        stats: &mut RoundStats,
        send: Send<'_>,
    ) -> io::Result<()> {
        let stopped = pass != Pass::Running;
        let began = start_time(pid)?;
        if self.tasks.get(&pid).is_some_and(|task| task.began != began) {
            self.forget(pid, send)?;
        }
        let others: Vec<i32> = { self.tasks.keys().copied() }
            .filter(|other| *other != pid)
            .collect();
        let task = match self.tasks.entry(pid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Task {
                inner: inner_pid(pid)?,
                began,
                tracking: Tracking::None,
                sent: PageSet::default(),
                unread: PageSet::default(),
            }),
        };
        let regions = if stopped {
            task.look(pid)?
        } else {
            task.take(pid, self.method, &others, stats)?
        };
        task.withdraw(&regions, send)?;
        task.forget_unread(&regions);
        for region in &regions {
            stats.populated += region.span.pages();
            if region.written {
                stats.written += region.span.pages();
                if pass == Pass::Leave {
                    task.leave(region.span, send)?;
                } else {
                    task.send(pid, region.span, stats, send)?;
                }
            }
        }
        for span in task.unread.spans() {
            task.send(pid, span, stats, send)?;
        }
        match task.unread.next(0, 1) {
            // It is there, and the destination would not have it.
            Some(page) if stopped => Err(io::Error::other(format!(
                "page {:#x} of task {} can't be read",
                page.start, task.inner
            ))),
            _ => Ok(()),
        }
    }
}

impl Task {
    /// Populated pages, and which were written since they were taken last: a write that comes
    /// later belongs to the next round.
    fn take(
        &mut self,
        pid: i32,
        method: Method,
        others: &[i32],
        stats: &mut RoundStats,
    ) -> io::Result<Vec<Region>> {
        // Twice: a process that replaced its program has another memory than its tracker.
        for _ in 0..2 {
            let spans = maps::carried(pid)?;
            if spans.is_empty() {
                return Ok(Vec::new());
            }
            if matches!(self.tracking, Tracking::None) {
                // Between vfork and exec there are two processes to one memory. Who asked for both
                // would take from one what was written for the other.
                if others.iter().any(|other| same_memory(pid, *other)) {
                    break;
                }
                self.tracking = match Tracker::attach(pid, method) {
                    Ok(tracker) => Tracking::By(tracker),
                    Err(error) if ended(&error) => return Err(error),
                    Err(error) => {
                        tracing::debug!(pid, %error, "writes of this process can't be tracked");
                        break;
                    }
                };
            }
            let Tracking::By(tracker) = &mut self.tracking else {
                break;
            };
            match tracker.take(pid, &spans) {
                Ok(regions) => return Ok(regions),
                Err(_) => self.tracking = Tracking::None,
            }
        }
        stats.untracked += 1;
        tracker::untracked(pid, &maps::carried(pid)?)
    }

    /// The same of a task that is stopped for good.
    fn look(&self, pid: i32) -> io::Result<Vec<Region>> {
        let spans = maps::carried(pid)?;
        match &self.tracking {
            Tracking::By(tracker) => tracker.look(pid, &spans),
            Tracking::None => tracker::untracked(pid, &spans),
        }
    }

    /// Takes back what was sent and is not populated any more.
    fn withdraw(&mut self, regions: &[Region], send: Send<'_>) -> io::Result<()> {
        let mut left = self.sent.clone();
        for region in regions {
            left.remove(region.span);
        }
        for span in left.spans() {
            self.zero(span, send)?;
        }
        Ok(())
    }

    /// What could not be read and is not populated any more need not be.
    fn forget_unread(&mut self, regions: &[Region]) {
        if self.unread.is_empty() {
            return;
        }
        let mut populated = PageSet::default();
        for region in regions {
            populated.insert(region.span);
        }
        let mut left = PageSet::default();
        for span in self.unread.common(&populated) {
            left.insert(span);
        }
        self.unread = left;
    }

    fn zero(&mut self, span: Span, send: Send<'_>) -> io::Result<()> {
        self.sent.remove(span);
        for span in cells(span) {
            send(Frame {
                task: self.inner,
                address: span.start,
                content: Content::Zero(span.pages()),
            })?;
        }
        Ok(())
    }

    /// Names pages that stay behind.
    fn leave(&mut self, span: Span, send: Send<'_>) -> io::Result<()> {
        self.sent.remove(span);
        self.unread.remove(span);
        send(Frame {
            task: self.inner,
            address: span.start,
            content: Content::Later(span.pages()),
        })
    }

    fn send(
        &mut self,
        pid: i32,
        span: Span,
        stats: &mut RoundStats,
        send: Send<'_>,
    ) -> io::Result<()> {
        for span in cells(span) {
            let found = read::read(pid, self.inner, span)?;
            for frame in found.frames {
                let sent = Span {
                    start: frame.address,
                    end: frame.end(),
                };
                self.sent.insert(sent);
                stats.sent += sent.pages();
                send(frame)?;
            }
            self.unread.remove(span);
            for span in found.unread {
                self.unread.insert(span);
            }
            for span in found.zero {
                stats.zero += span.pages();
                // Only what it has must be taken back; often that is nothing.
                let mut part = PageSet::default();
                part.insert(span);
                for had in self.sent.common(&part) {
                    self.zero(had, send)?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn inner_pid(pid: i32) -> io::Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .and_then(|pids| pids.split_ascii_whitespace().next_back()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no NSpid"))
}

fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses, and may hold any of these.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no start time"))
}
