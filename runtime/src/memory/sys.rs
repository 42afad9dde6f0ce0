//! Memory of other tasks: ptrace, userfaultfd, PAGEMAP_SCAN. All `unsafe` of `memory` is here.

mod fault;
mod inject;
mod scan;

pub use fault::{Event, Fault, Mapped};
pub use inject::with_stopped;
pub use scan::{Kind, Region, Scan};

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A process's descriptor, as one of our own.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; a success is a new descriptor that nobody else owns.
    unsafe {
        let got = check(libc::syscall(
            libc::SYS_pidfd_getfd,
            pidfd.as_raw_fd(),
            fd,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(got as i32))
    }
}

/// A userfaultfd of this process itself, to ask what the kernel can do.
pub fn userfaultfd() -> io::Result<Fault> {
    const USER_MODE_ONLY: libc::c_int = 1;
    // SAFETY: plain arguments; a success is a new descriptor that nobody else owns.
    unsafe {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
        let fd = check(libc::syscall(libc::SYS_userfaultfd, flags))?;
        Ok(Fault::new(OwnedFd::from_raw_fd(fd as i32)))
    }
}

/// Whether two processes have one memory, as after vfork. Who can't be asked has its own.
pub fn same_memory(one: i32, other: i32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: numbers alone.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}

/// Reads a task's memory; answers how many bytes from its beginning could be read.
pub fn read_memory(pid: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len(),
    };
    // SAFETY: `local` is a buffer of ours that outlives the call; the other address is a number
    // that only the kernel looks up, in the other task.
    let read = unsafe { libc::process_vm_readv(pid, &local, 1, &remote, 1, 0) };
    Ok(check(read as libc::c_long)? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_memory_with_itself_alone() {
        let mut other = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let (me, it) = (std::process::id() as i32, other.id() as i32);
        let same = (same_memory(me, me), same_memory(me, it));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(same, (true, false));
        assert!(!same_memory(me, i32::MAX));
    }
}
