//! The source's side of a post-copy: pages of frozen tasks that the destination still misses,
//! those first that somebody waits for there.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use super::{
    FRAME_PAGES, Frame, PAGE,
    hidden::ended,
    maps::Span,
    pages::PageSet,
    read::{self, Found},
    session::inner_pid,
};

/// Pages that go along with one that is wanted: as many as a fault brings along where the pages
/// are there.
const AROUND: u64 = 16;
/// Pages that a destination may name in all: 1 TiB.
const MOST: u64 = 1 << 28;

/// Of one container. Its tasks are stopped, or what is read is worth nothing.
pub struct Left {
    tasks: BTreeMap<u32, Task>,
    wanted: VecDeque<(u32, u64)>,
    /// What comes next is likely needed next.
    at: (u32, u64),
    named: u64,
}

struct Task {
    pid: i32,
    pages: PageSet,
}

/// What goes next.
#[derive(Debug, Default)]
pub struct Piece {
    pub frames: Vec<Frame>,
    /// Of this task, and zeros.
    pub task: u32,
    pub zero: Vec<Span>,
}

impl Left {
    /// `pids`: the container's processes, as this host numbers them.
    pub fn new(pids: &[i32]) -> io::Result<Self> {
        let task = |pid: &i32| {
            let task = Task {
                pid: *pid,
                pages: PageSet::default(),
            };
            Ok((inner_pid(*pid)?, task))
        };
        Ok(Self {
            tasks: pids.iter().map(task).collect::<io::Result<_>>()?,
            wanted: VecDeque::new(),
            at: (0, 0),
            named: 0,
        })
    }

    /// The destination misses these. False: there is no such task, or it can't be so many.
    pub fn misses(&mut self, task: u32, span: Span) -> bool {
        self.named = self.named.saturating_add(span.pages());
        let Some(task) = self.tasks.get_mut(&task) else {
            return false;
        };
        if self.named > MOST {
            return false;
        }
        task.pages.insert(span);
        true
    }

    /// Somebody waits for this page.
    pub fn wants(&mut self, task: u32, address: u64) {
        self.wanted.push_back((task, address / PAGE * PAGE));
    }

    /// Whether somebody waits.
    pub fn is_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.values().all(|task| task.pages.is_empty())
    }

    pub fn pages(&self) -> u64 {
        self.tasks.values().map(|task| task.pages.len()).sum()
    }

    /// Reads what goes next. None: nothing is left. `NotFound`: a task has ended.
    pub fn read_next(&mut self) -> io::Result<Option<Piece>> {
        let Some((task, span)) = self.choose() else {
            return Ok(None);
        };
        self.at = (task, span.end);
        let Some(of) = self.tasks.get_mut(&task) else {
            return Ok(None);
        };
        of.pages.remove(span);
        let Found {
            frames,
            zero,
            unread,
        } = read::read(of.pid, task, span).map_err(|error| match ended(&error) {
            true => io::Error::new(io::ErrorKind::NotFound, "a frozen task has ended"),
            false => error,
        })?;
        if let Some(page) = unread.first() {
            let text = format!("page {:#x} of task {task} can't be read", page.start);
            return Err(io::Error::other(text));
        }
        Ok(Some(Piece { frames, task, zero }))
    }

    fn choose(&mut self) -> Option<(u32, Span)> {
        while let Some((task, address)) = self.wanted.pop_front() {
            let Some(of) = self.tasks.get(&task) else {
                continue;
            };
            // Sent already, most likely.
            if !of.pages.contains(address) {
                continue;
            }
            let cell = address / (AROUND * PAGE) * AROUND * PAGE;
            let around = of.pages.within(Span {
                start: cell,
                end: cell + AROUND * PAGE,
            });
            let found = around
                .into_iter()
                .find(|span| (span.start..span.end).contains(&address));
            if let Some(span) = found {
                return Some((task, span));
            }
        }
        let (first, address) = self.at;
        let all = self.tasks.range(first..).chain(self.tasks.range(..first));
        for (task, of) in all {
            let start = if *task == first { address } else { 0 };
            if let Some(span) = of.pages.next(start, FRAME_PAGES as u64) {
                return Some((*task, span));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pages: &[(u32, u64, u64)]) -> Left {
        let task = || Task {
            pid: 1,
            pages: PageSet::default(),
        };
        let mut left = Left {
            tasks: [(1, task()), (2, task())].into(),
            wanted: VecDeque::new(),
            at: (0, 0),
            named: 0,
        };
        for (task, start, end) in pages {
            assert!(left.misses(*task, span(*start, *end)));
        }
        left
    }

    fn span(start: u64, end: u64) -> Span {
        Span {
            start: start * PAGE,
            end: end * PAGE,
        }
    }

    /// As [`Left::read_next`], without reading.
    fn take(left: &mut Left) -> Option<(u32, Span)> {
        let (task, span) = left.choose()?;
        left.at = (task, span.end);
        left.tasks.get_mut(&task)?.pages.remove(span);
        Some((task, span))
    }

    #[test]
    fn what_is_wanted_goes_first_and_what_follows_it_next() {
        let mut left = left(&[(1, 0, 100), (2, 1000, 1100)]);
        left.wants(2, 1030 * PAGE + 5);
        assert_eq!(take(&mut left), Some((2, span(1024, 1040))));
        // Asked twice, sent once.
        left.wants(2, 1030 * PAGE);
        assert_eq!(take(&mut left), Some((2, span(1040, 1100))));
        assert_eq!(take(&mut left), Some((2, span(1000, 1024))));
        assert_eq!(take(&mut left), Some((1, span(0, 64))));
        assert_eq!(take(&mut left), Some((1, span(64, 100))));
        assert_eq!(take(&mut left), None);
        assert_eq!(left.pages(), 0);
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let mut left = left(&[]);
        assert!(!left.misses(9, span(0, 1)));
        assert!(!left.misses(1, span(0, MOST + 1)));
        left.wants(9, 0);
        assert_eq!(take(&mut left), None);
    }
}
