//! The pager as the shim sees it: a process that holds the container's memory until it is done. It
//! is a child of the shim that started it, and outlives that one.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{
    memory::pager::{IndexAt, READY},
    shim::kept::{self, Task},
};

/// Dropped, it is killed: only right while no task needs it.
pub struct Pager {
    task: Task,
    /// None: of the shim before this one.
    child: Option<Child>,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// What it makes when it is done.
    paged: PathBuf,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
}

impl Pager {
    /// Starts it in the directory where CRIU will look for its socket. `feed`: the one over which
    /// memory comes late.
    pub fn start(directory: &Path, feed: &Path) -> io::Result<Self> {
        let paged = kept::paged(feed);
        kept::remove(&paged)?;
        let mut child = Command::new("/proc/self/exe")
            .arg("--pager")
            .args([directory, feed])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let opened = Task::of(child.id() as i32).and_then(|task| {
            let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
            Ok((task, pidfd))
        });
        let (task, pidfd) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        Ok(Self {
            task,
            pidfd,
            paged,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            child: Some(child),
        })
    }

    /// That of another shim, which is gone. None: it has delivered everything. An error: it was
    /// killed, and what it held is gone.
    pub fn adopt(task: Task, feed: &Path) -> io::Result<Option<Self>> {
        let paged = kept::paged(feed);
        let pid = Pid::from_raw(task.pid).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        match pidfd {
            Ok(pidfd) if task.lives() => Ok(Some(Self {
                task,
                child: None,
                pidfd,
                paged,
                stdin: None,
                stdout: None,
            })),
            _ if paged.exists() => Ok(None),
            _ => Err(io::Error::other(
                "the pager ended before all memory was in place",
            )),
        }
    }

    pub fn task(&self) -> Task {
        self.task
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
        match self.child.as_mut().map(Child::try_wait) {
            None => (!self.task.lives()).then(|| self.paged.exists()),
            Some(Ok(None)) => None,
            Some(Ok(Some(status))) => Some(status.success()),
            Some(Err(_)) => Some(false),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // Errors: it has ended already.
        match &mut self.child {
            Some(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            None => drop(pidfd_send_signal(&self.pidfd, Signal::KILL)),
        }
        let _ = kept::remove(&self.paged);
    }
}
