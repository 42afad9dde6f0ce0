//! The pager: a process that serves the page faults of restored tasks from the store, and pushes
//! what nobody asked for, until it is not needed any more.
//!
//! It is a child of the shim, of its own, so that neither a restart of the agent nor a fork in
//! the shim concerns it: from the commit on it holds the only copy of pages that have not been
//! put into the tasks yet. Until CRIU has connected it ends with the shim; from then on it outlives
//! one that is killed, and the next shim finds a file by which it knows that all is in place. Its
//! standard input is the shim:
//!
//! ```text
//! shim → pager   {"pid":…,"fd":…}    the store's index, opened from the agent's descriptors
//! pager → shim   ready               the socket of `criu restore --lazy-pages` is served
//! ```
//!
//! In a post-copy some pages come only when the container runs here: an agent brings them over a
//! socket of their own ([`feed`](super::feed)), those first that somebody waits for.
//!
//! CRIU connects to `lazy-pages.socket` in its working directory, and sends for each task its pid
//! and then its userfaultfd; at the end a word that says so.

mod criu;
mod feed;
mod serve;
mod source;
mod space;

use std::{
    fs,
    io::{self, BufRead, Write},
    os::unix::net::UnixListener,
    path::Path,
};

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::shim::kept;
pub use source::Source;

/// `criu restore` looks for it in its working directory.
const SOCKET: &str = "lazy-pages.socket";
/// What is said when the socket is served.
pub const READY: &str = "ready";

/// Where the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexAt {
    pub pid: i32,
    pub fd: i32,
}

/// Runs the pager in CRIU's working directory, until every page is where it belongs. `feed`: the
/// socket over which pages come late.
pub fn run(directory: &Path, feed: &Path) -> io::Result<()> {
    // Not in the group of the shim: what is meant for that one is not meant for this.
    rustix::process::setsid()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Relative, since a socket's path may have 107 bytes only.
    std::env::set_current_dir(directory)?;
    match fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.is_empty() {
        // Never staged.
        return Ok(());
    }
    let at: IndexAt = serde_json::from_str(&line)?;
    let sources = source::open(at)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    let (stream, _) = listener.accept()?;
    // A shim that is killed takes CRIU with it, which says so here, unless the tasks run.
    set_parent_process_death_signal(None)?;
    let _ = fs::remove_file(SOCKET);
    let feeds = feed::Feeds::open(feed)?;
    serve::serve(criu::Connection::new(stream)?, sources, feeds)?;
    fs::write(kept::paged(feed), "")
}
