//! Holds a descriptor of a kind that no checkpoint can hold, until SIGTERM.

use std::process::ExitCode;

use anyhow::{Context, Result};
use nix::libc;

use super::{exit, sys};

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Kind {
    IoUring,
    Userfaultfd,
    Mptcp,
}

pub fn run(kind: Kind) -> Result<ExitCode> {
    let mut parameters = [0_u8; 120];
    let made = match kind {
        Kind::IoUring => {
            sys::descriptor(libc::SYS_io_uring_setup, [4, 0, 0], Some(&mut parameters))
        }
        // 1: of faults in user mode alone.
        Kind::Userfaultfd => sys::descriptor(libc::SYS_userfaultfd, [1, 0, 0], None),
        Kind::Mptcp => {
            let kind = [libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP];
            sys::descriptor(libc::SYS_socket, kind.map(libc::c_long::from), None)
        }
    };
    let _held = made.with_context(|| format!("{kind:?}"))?;
    exit::run(0)
}
