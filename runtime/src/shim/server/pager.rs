//! The pager as the shim sees it: a child that holds the container's memory until it is done.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::memory::pager::{IndexAt, READY};

/// Dropped, it is killed: only right while no task needs it.
pub struct Pager {
    child: Child,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Pager {
    /// Starts it in the directory where CRIU will look for its socket. `feed`: the one over which
    /// memory comes late.
    pub fn start(directory: &Path, feed: &Path) -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg("--pager")
            .args([directory, feed])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pid = Pid::from_child(&child);
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(errno.into());
            }
        };
        Ok(Self {
            pidfd,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child,
        })
    }

    /// Hands it the store, and waits until it serves CRIU's socket.
    pub fn open(&mut self, index: IndexAt) -> io::Result<()> {
        let (Some(mut stdin), Some(stdout)) = (self.stdin.take(), self.stdout.take()) else {
            return Err(io::Error::other("pager has its memory already"));
        };
        let mut line = serde_json::to_vec(&index)?;
        line.push(b'\n');
        stdin.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stdout).read_line(&mut answer)?;
        if answer.trim_end() == READY {
            return Ok(());
        }
        Err(io::Error::other(
            "pager could not open the memory that arrived; its reason is in the shim's log",
        ))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it ended well; None: it runs.
    pub fn ended(&mut self) -> Option<bool> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.success()),
            Err(_) => Some(false),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
