//! A seccomp filter as strict profiles have it: who touches userfaultfd, ptrace or another
//! process's memory is killed.

use anyhow::{Result, ensure};
use nix::{
    libc,
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::workload::sys;

const FORBIDDEN: [libc::c_long; 9] = [
    libc::SYS_userfaultfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_io_uring_setup,
];

/// For this process and all that it forks. Before any thread is started.
pub fn forbid() -> Result<()> {
    Ok(sys::forbid(&FORBIDDEN)?)
}

/// Insists that a child which asks for a userfaultfd is killed for it.
pub fn holds() -> Result<()> {
    let Some(child) = sys::fork()? else {
        sys::ask_for_userfaultfd();
        sys::exit(0);
    };
    let ended = waitpid(Pid::from_raw(child), None)?;
    let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _));
    ensure!(
        killed,
        "bad filter: who asked for a userfaultfd ended as {ended:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_kills_who_tries_it() {
        assert!(holds().is_err(), "nothing is forbidden yet");
        // A thread's filter is that thread's alone, and that of what it forks.
        let forbidden = std::thread::spawn(|| forbid().and_then(|()| holds()));
        forbidden.join().unwrap().unwrap();
    }
}
