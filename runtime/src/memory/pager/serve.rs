//! The pager's loop: faults first, then what came, then a piece of what nobody asked for.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    rc::{Rc, Weak},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    criu::{Connection, Message},
    feed::Feeds,
    source::Source,
    space::Space,
};
use crate::memory::{
    feed::{Arrival, Word},
    maps::Span,
    pages::PageSet,
};

/// Returns when every page is delivered and CRIU has said that it is through.
pub fn serve(
    connection: Connection,
    sources: BTreeMap<u32, (Source, PageSet)>,
    feeds: Feeds,
) -> io::Result<()> {
    let unclaimed: BTreeMap<_, _> = sources
        .into_iter()
        .map(|(task, (source, pending))| (task, (Rc::new(RefCell::new(source)), pending)))
        .collect();
    let mut pager = Pager {
        connection: Some(connection),
        sources: unclaimed
            .iter()
            .map(|(task, (source, _))| (*task, Rc::downgrade(source)))
            .collect(),
        unclaimed,
        finished: false,
        spaces: Vec::new(),
        feeds,
    };
    while !pager.is_done() {
        pager.turn()?;
    }
    Ok(())
}

struct Pager {
    /// None: CRIU is through.
    connection: Option<Connection>,
    /// Of tasks that are not restored yet.
    unclaimed: BTreeMap<u32, (Rc<RefCell<Source>>, PageSet)>,
    /// The tasks run.
    finished: bool,
    spaces: Vec<Space>,
    /// All that somebody may still need, by their task at the time of the freeze.
    sources: BTreeMap<u32, Weak<RefCell<Source>>>,
    feeds: Feeds,
}

impl Pager {
    fn is_done(&self) -> bool {
        self.finished && self.spaces.iter().all(Space::is_done)
    }

    fn turn(&mut self) -> io::Result<()> {
        let ready = self.wait()?;
        if ready.criu {
            self.listen()?;
        }
        if ready.feed {
            self.take()?;
        }
        let mut born = Vec::new();
        let mut ended = Vec::new();
        for (index, space) in self.spaces.iter_mut().enumerate() {
            let task = space.task;
            let feeds = &mut self.feeds;
            let mut want = |address| feeds.say(Word::Want { task, address });
            if space.serve(&mut born, &mut want)?.is_err()
                || (self.finished && space.push()?.is_err())
            {
                ended.push(index);
            }
        }
        let mut over = !ended.is_empty();
        for index in ended.into_iter().rev() {
            self.spaces.swap_remove(index);
        }
        self.spaces.extend(born);
        if self.finished {
            let before = self.spaces.len();
            // Let go of at once: its faults are the kernel's alone from then on.
            self.spaces.retain(|space| !space.is_done());
            over |= self.spaces.len() < before;
        }
        if over {
            // Nobody needs what they still missed.
            self.sources.retain(|_, source| source.strong_count() > 0);
            self.say_if_whole();
        }
        self.feeds.flush();
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        let Some(criu) = &self.connection else {
            return Ok(());
        };
        match criu.next()? {
            Message::Task { task, fault } => {
                // One that has no carried memory still gets its zeros from here.
                let (source, pending) = match self.unclaimed.remove(&task) {
                    Some(found) => found,
                    None => (Rc::new(RefCell::new(Source::empty()?)), PageSet::default()),
                };
                self.spaces.push(Space::new(task, fault, source, pending));
            }
            Message::Zombie => {}
            Message::Finished => {
                self.finished = true;
                self.connection = None;
                // Of tasks that have none.
                self.unclaimed.clear();
                self.say_if_whole();
            }
            Message::Closed => {
                return Err(io::Error::other("criu went away before it was through"));
            }
        }
        Ok(())
    }

    /// What the agent sent.
    fn take(&mut self) -> io::Result<()> {
        if self.feeds.accept()? {
            self.tell_all();
        }
        for arrival in self.feeds.arrivals() {
            match arrival {
                Arrival::Pages {
                    task,
                    address,
                    bytes,
                } => {
                    let end = address + bytes.len() as u64;
                    let span = Span {
                        start: address,
                        end,
                    };
                    self.arrive(task, span, Some(&bytes))?;
                    let bytes = bytes.len() as u64;
                    self.feeds.say(Word::Got { bytes });
                }
                Arrival::Zero { task, span } => self.arrive(task, span, None)?,
                Arrival::Lost => {
                    return Err(io::Error::other(
                        "the host that this container came from has lost the rest of its memory",
                    ));
                }
            }
        }
        Ok(())
    }

    fn arrive(&mut self, task: u32, span: Span, bytes: Option<&[u8]>) -> io::Result<()> {
        let Some(source) = self.sources.get(&task).and_then(Weak::upgrade) else {
            return Ok(());
        };
        let came = source.borrow_mut().arrive(span, bytes)?;
        if came.is_empty() {
            return Ok(());
        }
        for space in &mut self.spaces {
            if Rc::ptr_eq(space.source(), &source) {
                came.iter().for_each(|span| space.arrived(*span));
            }
        }
        if source.borrow().missing().is_empty() {
            self.say_if_whole();
        }
        Ok(())
    }

    /// For an agent that has just connected.
    fn tell_all(&mut self) {
        for (task, source) in &self.sources {
            let Some(source) = source.upgrade() else {
                continue;
            };
            for span in source.borrow().missing().spans() {
                self.feeds.say(Word::Missing { task: *task, span });
            }
        }
        self.feeds.say(Word::Told);
        for space in &self.spaces {
            for address in space.wanted() {
                let task = space.task;
                self.feeds.say(Word::Want { task, address });
            }
        }
        self.say_if_whole();
    }

    fn say_if_whole(&mut self) {
        let whole = |source: &Weak<RefCell<Source>>| {
            let source = source.upgrade();
            source.is_none_or(|source| source.borrow().missing().is_empty())
        };
        if self.finished && self.sources.values().all(whole) {
            self.feeds.say(Word::Whole);
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        // Once the tasks run, there is always something to do until all is here.
        let busy = self.finished && self.spaces.iter().any(Space::is_busy);
        let criu = self.connection.iter().map(AsFd::as_fd);
        let criu: Vec<BorrowedFd<'_>> = criu.collect();
        let feeds: Vec<(BorrowedFd<'_>, bool)> = self.feeds.sources().collect();
        let mut fds: Vec<PollFd<'_>> = criu
            .iter()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
            .chain(feeds.iter().map(|(fd, writes)| {
                let out = if *writes {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                PollFd::from_borrowed_fd(*fd, PollFlags::IN | out)
            }))
            .chain(
                self.spaces
                    .iter()
                    .map(|space| PollFd::from_borrowed_fd(space.fault.as_fd(), PollFlags::IN)),
            )
            .collect();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, if busy { Some(&now) } else { None }) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = |part: &[PollFd<'_>]| part.iter().any(|fd| !fd.revents().is_empty());
        Ok(Ready {
            criu: ready(&fds[..criu.len()]),
            feed: ready(&fds[criu.len()..criu.len() + feeds.len()]),
        })
    }
}

struct Ready {
    criu: bool,
    feed: bool,
}
