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
    sys::{Kind, Region, Scan},
    tracker::Tracker,
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
    /// Processes whose writes can't be tracked: all of their pages count as written each time.
    pub untracked: u32,
}

/// The memory of one container on its way.
#[derive(Default)]
pub struct Session {
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

/// Takes a frame. An error ends the round.
type Send<'a> = &'a mut dyn FnMut(Frame) -> io::Result<()>;

impl Session {
    /// One round while the tasks run. `pids` are the container's processes.
    pub fn round(&mut self, pids: &[i32], send: Send<'_>) -> io::Result<RoundStats> {
        self.pass(pids, false, send)
    }

    /// The last round: every task is stopped.
    pub fn finish(&mut self, pids: &[i32], send: Send<'_>) -> io::Result<RoundStats> {
        self.pass(pids, true, send)
    }

    fn pass(&mut self, pids: &[i32], stopped: bool, send: Send<'_>) -> io::Result<RoundStats> {
        let began = Instant::now();
        let mut stats = RoundStats::default();
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
            match self.visit(*pid, stopped, &mut stats, send) {
                // It ended while we looked.
                Err(error) if ended(&error) && !stopped => self.forget(*pid, send)?,
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
        stopped: bool,
        stats: &mut RoundStats,
        send: Send<'_>,
    ) -> io::Result<()> {
        let began = start_time(pid)?;
        if self.tasks.get(&pid).is_some_and(|task| task.began != began) {
            self.forget(pid, send)?;
        }
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
            look(pid, &maps::carried(pid)?)?
        } else {
            task.take(pid, stats)?
        };
        task.withdraw(&regions, send)?;
        task.forget_unread(&regions);
        for region in &regions {
            stats.populated += region.span.pages();
            if region.written {
                stats.written += region.span.pages();
                task.send(pid, region.span, stats, send)?;
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
    /// Populated pages, and protects the written ones before anybody reads them: a write that
    /// comes later belongs to the next round.
    fn take(&mut self, pid: i32, stats: &mut RoundStats) -> io::Result<Vec<Region>> {
        // Twice: a process that replaced its program has another memory than its tracker.
        for _ in 0..2 {
            let spans = maps::carried(pid)?;
            if spans.is_empty() {
                return Ok(Vec::new());
            }
            if matches!(self.tracking, Tracking::None) {
                self.tracking = match Tracker::attach(pid) {
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
            match scan(pid, tracker, &spans) {
                Ok(regions) => return Ok(regions),
                Err(_) => self.tracking = Tracking::None,
            }
        }
        stats.untracked += 1;
        let mut regions = look(pid, &maps::carried(pid)?)?;
        regions.iter_mut().for_each(|region| region.written = true);
        Ok(regions)
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

/// The populated pages of all mappings. Those of a mapping that is not tracked yet count as
/// written, and it is tracked from now on.
fn scan(pid: i32, tracker: &mut Tracker, spans: &[Span]) -> io::Result<Vec<Region>> {
    let mut found = Vec::new();
    let failed = take_all(tracker, spans, &mut found)?;
    if failed.is_empty() {
        return Ok(found);
    }
    tracker.catch_up(pid)?;
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
    let untracked = take_all(tracker, &due, &mut second)?;
    second.extend(look(pid, &untracked)?);
    for region in second {
        found.extend(marked(region, &trusted));
    }
    Ok(found)
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

/// Takes every span; answers those that are not tracked.
fn take_all(
    tracker: &mut Tracker,
    spans: &[Span],
    found: &mut Vec<Region>,
) -> io::Result<Vec<Span>> {
    let mut failed = Vec::new();
    for span in spans {
        let before = found.len();
        match tracker.take(*span, found) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => {
                found.truncate(before);
                failed.push(*span);
            }
            other => other?,
        }
    }
    Ok(failed)
}

pub(super) fn look(pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
    let mut scan = Scan::open(pid)?;
    let mut found = Vec::new();
    for span in spans {
        match scan.populated(*span, Kind::Look, &mut found) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOTTY) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "this kernel has no PAGEMAP_SCAN (6.7 or newer has)",
                ));
            }
            other => other?,
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::super::PAGE;
    use super::*;

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
