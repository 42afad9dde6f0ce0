//! The pager's loop: faults first, then a piece of what nobody asked for.

use std::{collections::BTreeMap, io, os::fd::AsFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    criu::{Connection, Message},
    source::Source,
    space::Space,
};
use crate::memory::pages::PageSet;

/// Returns when every page is delivered and CRIU has said that it is through.
pub fn serve(
    connection: Connection,
    mut sources: BTreeMap<u32, (Source, PageSet)>,
) -> io::Result<()> {
    let mut connection = Some(connection);
    let mut finished = false;
    let mut spaces: Vec<Space> = Vec::new();
    loop {
        // Once the tasks run, there is always something to do until all is done.
        let idle = !finished || spaces.iter().all(Space::is_done);
        if finished && idle {
            return Ok(());
        }
        let ready = wait(connection.as_ref(), &spaces, idle)?;
        if ready.connection
            && let Some(criu) = &connection
        {
            match criu.next()? {
                Message::Task { task, fault } => {
                    // One that has no carried memory still gets its zeros from here.
                    let (source, pending) = match sources.remove(&task) {
                        Some(found) => found,
                        None => (Source::empty()?, PageSet::default()),
                    };
                    spaces.push(Space::new(fault, source, pending));
                }
                Message::Zombie => {}
                Message::Finished => {
                    finished = true;
                    connection = None;
                }
                Message::Closed => {
                    return Err(io::Error::other("criu went away before it was through"));
                }
            }
        }
        let mut born = Vec::new();
        let mut ended = Vec::new();
        for (index, space) in spaces.iter_mut().enumerate() {
            if space.serve(&mut born)?.is_err() || (finished && space.push()?.is_err()) {
                ended.push(index);
            }
        }
        for index in ended.into_iter().rev() {
            spaces.swap_remove(index);
        }
        spaces.extend(born);
        if finished {
            // Let go of at once: its faults are the kernel's alone from then on.
            spaces.retain(|space| !space.is_done());
        }
    }
}

struct Ready {
    connection: bool,
}

fn wait(connection: Option<&Connection>, spaces: &[Space], idle: bool) -> io::Result<Ready> {
    let mut fds: Vec<PollFd<'_>> = connection
        .iter()
        .map(|criu| PollFd::from_borrowed_fd(criu.as_fd(), PollFlags::IN))
        .chain(
            spaces
                .iter()
                .map(|space| PollFd::from_borrowed_fd(space.fault.as_fd(), PollFlags::IN)),
        )
        .collect();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut fds, if idle { None } else { Some(&now) }) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(Ready {
        connection: connection.is_some() && !fds[0].revents().is_empty(),
    })
}
