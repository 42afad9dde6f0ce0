//! One task's address space: which pages it still has to get, and from where.

use std::{cell::RefCell, io, rc::Rc};

use nix::libc;

use super::source::{Source, window_end};
use crate::memory::{
    PAGE,
    maps::Span,
    pages::PageSet,
    sys::{Event, Fault},
};

/// Pages around a fault that are brought along.
const AROUND: u64 = 16;
/// Pages that are pushed at once: a fault waits no longer than this takes.
const PUSH: u64 = 128;

pub struct Space {
    /// At the time of the freeze; of one that was forked since, its parent's.
    pub task: u32,
    pub fault: Fault,
    source: Rc<RefCell<Source>>,
    /// By the address where they are wanted now.
    pending: PageSet,
    /// Spans that were moved, and where their pages are in the source; later ones win.
    moved: Vec<(Span, u64)>,
    /// Where it was last busy: what comes next is likely needed next.
    cursor: u64,
    /// Faults that could not be served while the task changed its mappings.
    waiting: Vec<u64>,
    /// Pages that have not come from the source yet, by the address where they are wanted now;
    /// taken out of `pending` when they are met.
    absent: PageSet,
    /// Faults that wait for one of those.
    later: Vec<u64>,
}

/// The task has ended.
pub struct Ended;

impl Space {
    pub fn new(task: u32, fault: Fault, source: Rc<RefCell<Source>>, pending: PageSet) -> Self {
        Self {
            task,
            fault,
            source,
            pending,
            moved: Vec::new(),
            cursor: 0,
            waiting: Vec::new(),
            absent: PageSet::default(),
            later: Vec::new(),
        }
    }

    pub fn is_done(&self) -> bool {
        !self.is_busy() && self.absent.is_empty() && self.later.is_empty()
    }

    /// Whether there is something to do before anything else happens.
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty() || !self.waiting.is_empty()
    }

    pub fn source(&self) -> &Rc<RefCell<Source>> {
        &self.source
    }

    /// The pages that faults wait for, as the source knows them.
    pub fn wanted(&self) -> impl Iterator<Item = u64> {
        self.later.iter().map(|address| {
            let page = Span {
                start: *address,
                end: address + PAGE,
            };
            self.locate(page).0
        })
    }

    /// Pages of the source that came: they can be delivered now.
    pub fn arrived(&mut self, came: Span) {
        self.recall(came);
        let moved: Vec<Span> = self
            .moved
            .iter()
            .filter_map(|(there, offset)| {
                let start = came.start.max(*offset);
                let end = came.end.min(offset + (there.end - there.start));
                (start < end).then(|| Span {
                    start: there.start + (start - offset),
                    end: there.start + (end - offset),
                })
            })
            .collect();
        for span in moved {
            self.recall(span);
        }
        self.waiting.append(&mut self.later);
    }

    /// What counts as absent here may not be any more: it is looked at anew.
    fn recall(&mut self, span: Span) {
        for span in self.absent.within(span) {
            self.absent.remove(span);
            self.pending.insert(span);
        }
    }

    fn forget(&mut self, span: Span) {
        self.pending.remove(span);
        self.absent.remove(span);
        // They find nothing pending, and get zeros.
        self.waiting.append(&mut self.later);
    }

    /// Serves all events that wait. New spaces are those of forked tasks; `want` is given the
    /// pages that have to come first, as the source knows them.
    pub fn serve(
        &mut self,
        born: &mut Vec<Space>,
        want: &mut dyn FnMut(u64),
    ) -> io::Result<Result<(), Ended>> {
        loop {
            while let Some(event) = self.fault.next()? {
                match event {
                    Event::Missing { address } => self.waiting.push(address),
                    Event::Fork { child } => born.push(self.fork(child)),
                    Event::Remap { from, to, length } => self.remap(from, to, length),
                    Event::Remove(span) | Event::Unmap(span) => self.forget(span),
                }
            }
            let Some(address) = self.waiting.pop() else {
                return Ok(Ok(()));
            };
            match self.deliver(address)? {
                Delivery::Done => {}
                // Its event comes first.
                Delivery::Changing => self.waiting.push(address),
                Delivery::Absent(at) => {
                    want(at);
                    self.later.push(address);
                }
                Delivery::Ended => return Ok(Err(Ended)),
            }
        }
    }

    /// Pushes some of what is left.
    pub fn push(&mut self) -> io::Result<Result<(), Ended>> {
        let Some(span) = self.pending.next(self.cursor, PUSH) else {
            return Ok(Ok(()));
        };
        match self.copy(span)? {
            Delivery::Ended => Ok(Err(Ended)),
            Delivery::Done | Delivery::Changing | Delivery::Absent(_) => Ok(Ok(())),
        }
    }

    fn deliver(&mut self, address: u64) -> io::Result<Delivery> {
        let page = Span {
            start: address,
            end: address + PAGE,
        };
        self.recall(page);
        if !self.pending.contains(address) {
            return self.outcome(self.fault.zero(page), page, false);
        }
        let cell = address / (AROUND * PAGE) * AROUND * PAGE;
        let mut span = page;
        while span.start > cell && self.pending.contains(span.start - PAGE) {
            span.start -= PAGE;
        }
        while span.end < cell + AROUND * PAGE && self.pending.contains(span.end) {
            span.end += PAGE;
        }
        self.cursor = span.end;
        let mut delivery = self.copy(span)?;
        // What lies before it could not be filled, so neither was it.
        if matches!(delivery, Delivery::Done | Delivery::Absent(_))
            && self.pending.contains(address)
        {
            delivery = self.copy(page)?;
        }
        if matches!(delivery, Delivery::Absent(_)) {
            delivery = Delivery::Absent(self.locate(page).0);
        }
        Ok(delivery)
    }

    /// Brings the beginning of a span that is pending.
    fn copy(&mut self, span: Span) -> io::Result<Delivery> {
        let (offset, end) = self.locate(span);
        let end = end.min(span.start + window_end(offset) - offset);
        let span = Span {
            start: span.start,
            end,
        };
        let there = self.source.borrow().here(Span {
            start: offset,
            end: offset + (end - span.start),
        });
        let here = there.end - there.start;
        if here == 0 {
            return Ok(self.set_aside(span, offset));
        }
        let span = Span {
            start: span.start,
            end: span.start + here,
        };
        let copied = {
            let mut source = self.source.borrow_mut();
            self.fault.copy(span.start, source.bytes(there)?)
        };
        // A span that lies in more than one mapping is refused as a whole, as if nothing were there.
        if let Err(error) = &copied
            && error.raw_os_error() == Some(libc::ENOENT)
            && span.pages() > 1
        {
            let end = span.start + span.pages() / 2 * PAGE;
            return self.copy(Span {
                start: span.start,
                end,
            });
        }
        let delivery = self.outcome(copied, span, true)?;
        if matches!(delivery, Delivery::Done) {
            self.cursor = span.end;
        }
        Ok(delivery)
    }

    /// The beginning of a span, which is `offset` in the source, has not come yet.
    fn set_aside(&mut self, span: Span, offset: u64) -> Delivery {
        let length = span.end - span.start;
        let absent = self.source.borrow().missing().within(Span {
            start: offset,
            end: offset + length,
        });
        let length = absent.first().map_or(PAGE, |first| first.end - offset);
        let absent = Span {
            start: span.start,
            end: span.start + length,
        };
        self.pending.remove(absent);
        self.absent.insert(absent);
        self.cursor = absent.end;
        Delivery::Absent(offset)
    }

    /// What the kernel said to filling a span, and what is left to do about it.
    fn outcome(&mut self, done: io::Result<u64>, span: Span, free: bool) -> io::Result<Delivery> {
        let filled = match done {
            Ok(bytes) => bytes,
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(Delivery::Changing),
                Some(libc::ESRCH) => return Ok(Delivery::Ended),
                // There already: whoever waits can go on.
                Some(libc::EEXIST) => {
                    let first = Span {
                        start: span.start,
                        end: span.start + PAGE,
                    };
                    let _ = self.fault.wake(first);
                    PAGE
                }
                // Not mapped any more, or not for us.
                Some(libc::ENOENT) => PAGE,
                _ => return Err(error),
            },
        };
        let filled = Span {
            start: span.start,
            end: span.start + filled,
        };
        if free {
            let (offset, _) = self.locate(filled);
            self.pending.remove(filled);
            self.source.borrow().free(Span {
                start: offset,
                end: offset + (filled.end - filled.start),
            })?;
        }
        Ok(Delivery::Done)
    }

    /// Where the pages of a span are in the source, and how far that holds.
    fn locate(&self, span: Span) -> (u64, u64) {
        let mut end = span.end;
        for (moved, offset) in self.moved.iter().rev() {
            if (moved.start..moved.end).contains(&span.start) {
                return (offset + (span.start - moved.start), end.min(moved.end));
            }
            // One that begins later ends what is found for the beginning.
            if (span.start..end).contains(&moved.start) {
                end = moved.start;
            }
        }
        (span.start, end)
    }

    fn remap(&mut self, from: u64, to: u64, length: u64) {
        let source = Span {
            start: from,
            end: from + length,
        };
        self.recall(source);
        let mut part = PageSet::default();
        part.insert(source);
        let mut pieces = Vec::new();
        for mut span in self.pending.common(&part) {
            while span.start < span.end {
                let (offset, end) = self.locate(span);
                pieces.push((
                    Span {
                        start: span.start,
                        end,
                    },
                    offset,
                ));
                span.start = end;
            }
        }
        self.pending.remove(source);
        // They may be wanted elsewhere now.
        self.waiting.append(&mut self.later);
        for (span, offset) in pieces {
            let there = Span {
                start: span.start - from + to,
                end: span.end - from + to,
            };
            self.pending.insert(there);
            self.moved.push((there, offset));
        }
    }

    fn fork(&self, child: Fault) -> Self {
        self.source.borrow_mut().shared = true;
        Self {
            task: self.task,
            fault: child,
            source: self.source.clone(),
            pending: self.pending.clone(),
            moved: self.moved.clone(),
            cursor: self.cursor,
            waiting: Vec::new(),
            absent: self.absent.clone(),
            later: Vec::new(),
        }
    }
}

enum Delivery {
    Done,
    /// The task is changing its mappings; an event says how.
    Changing,
    /// The source has to send it first: where that has it.
    Absent(u64),
    Ended,
}
