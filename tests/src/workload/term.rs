//! SIGTERM as a flag: the first process of a container gets no default action.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::Result;
use nix::sys::signal::{SigSet, Signal};

/// Holds SIGTERM back in this thread, and in all it starts and forks from now on.
pub fn block() -> Result<SigSet> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.thread_block()?;
    Ok(set)
}

/// Call before any thread is started, so that all of them inherit the mask.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let set = block()?;
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = flag.clone();
    thread::spawn(move || {
        if set.wait().is_ok() {
            theirs.store(true, Ordering::SeqCst);
        }
    });
    Ok(flag)
}
