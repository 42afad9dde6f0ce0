//! Ctrl-C as a flag, so that everything is taken down on the way out. The bench's one place with
//! `unsafe`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// A handler, and not a mask: programs that are started from here must not inherit it.
pub fn catch_interrupts() -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}
