//! The C library's calls that the standard library does not have.

use std::{ffi::c_int, mem::MaybeUninit, os::unix::process::CommandExt, process::Command};

pub const CHILD: i32 = 17;
const BLOCK: c_int = 0;
const UNBLOCK: c_int = 1;
const NO_HANG: c_int = 1;

/// Larger than any C library's.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Signals([u8; 128]);

unsafe extern "C" {
    fn sigfillset(set: *mut Signals) -> c_int;
    fn sigprocmask(how: c_int, set: *const Signals, old: *mut Signals) -> c_int;
    fn sigwait(set: *const Signals, signal: *mut c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
}

/// Holds every signal back. Answers the set of them.
pub fn block_all() -> Signals {
    let mut set = MaybeUninit::<Signals>::zeroed();
    // SAFETY: the set is large enough for any C library's, and both calls only touch it.
    unsafe {
        sigfillset(set.as_mut_ptr());
        sigprocmask(BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    }
}

/// The command begins with no signal held back.
pub fn unblock_in_child(command: &mut Command, signals: &Signals) {
    let signals = *signals;
    // SAFETY: between fork and exec only one call is made, which may be made there.
    unsafe {
        command.pre_exec(move || {
            sigprocmask(UNBLOCK, &signals, std::ptr::null_mut());
            Ok(())
        });
    }
}

/// Waits for a signal of these.
pub fn wait(signals: &Signals) -> i32 {
    let mut signal = 0;
    // SAFETY: both pointers are valid for the call.
    unsafe { sigwait(signals, &mut signal) };
    signal
}

/// A process that has ended, and how; None: no more.
pub fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    let pid = unsafe { waitpid(-1, &mut status, NO_HANG) };
    (pid > 0).then_some((pid, status))
}

/// An error: it has ended, which is noticed next.
pub fn pass_on(pid: i32, signal: i32) {
    // SAFETY: plain arguments.
    unsafe { kill(pid, signal) };
}
