//! The container's init: noticed when it ends, signalled without a race. It is a child of the shim
//! that started it, and none of a shim that took it up.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use godwit_types::Exit;
use nix::libc;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};

use crate::{
    shim::kept::{self, Task},
    sys,
};

/// The exit code of a process that ended while nobody could ask for it; other runtimes have the
/// same.
const UNKNOWN: i32 = 255;
/// In `/proc/PID/stat`, counted from the state.
const EXIT_CODE: usize = 49;
/// How long the kernel may take to tell of an end that it has told of already, and the time between
/// two looks.
const TELL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);
/// How long a killed process may take to end.
const END: Duration = Duration::from_secs(10);

pub struct Init {
    task: Task,
    pid: Pid,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    is_child: bool,
}

impl Init {
    pub fn new(pid: i32) -> io::Result<Self> {
        Self::open(Task::of(pid)?, true)
    }

    /// Of another shim, which is gone. None: it has ended since, and somebody has waited for it.
    pub fn adopt(task: Task) -> io::Result<Option<Self>> {
        match Self::open(task, false) {
            Ok(init) if task.is_there() => Ok(Some(init)),
            Ok(_) => Ok(None),
            Err(_) if !task.is_there() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(task: Task, is_child: bool) -> io::Result<Self> {
        let pid = Pid::from_raw(task.pid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "pid 0"))?;
        Ok(Self {
            task,
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            is_child,
        })
    }

    pub fn task(&self) -> Task {
        self.task
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(signal).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {signal}"))
        })?;
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Whether it has ended, reaped or not, traced or not.
    pub fn is_dead(&self) -> bool {
        self.dies_within(Duration::ZERO)
    }

    fn dies_within(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: 0,
        };
        matches!(poll(&mut fds, Some(&patience)), Ok(1..))
    }

    /// How it ended; None: it runs, or a tracer has not let go of it.
    pub fn ended(&self) -> Option<Exit> {
        if !self.is_child {
            return self.is_dead().then(|| exit(self.told()));
        }
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Some(exit(code(status.as_raw())?)),
            _ => None,
        }
    }

    /// The exit code of what is no child. A process that its parent has not waited for says it
    /// itself; later the kernel does, since Linux 6.15.
    fn told(&self) -> i32 {
        let deadline = Instant::now() + TELL;
        loop {
            let zombie = || {
                let fields = kept::stat(self.task.pid).ok()?;
                let there = self.task.is_there() && fields.first()? == "Z";
                there.then(|| fields.get(EXIT_CODE)?.parse().ok()).flatten()
            };
            let status = zombie().or_else(|| sys::exit_status(self.pidfd.as_fd()));
            if let Some(code) = status.and_then(code) {
                return code;
            }
            if Instant::now() > deadline {
                tracing::warn!(pid = self.task.pid, "its exit code is not known");
                return UNKNOWN;
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until it has ended: after a SIGKILL.
    pub fn reap(&self) {
        if self.is_child {
            let _ = waitpid(Some(self.pid), WaitOptions::empty());
        } else {
            self.dies_within(END);
        }
    }
}

/// Of one that was gone before anybody looked.
pub fn unknown() -> Exit {
    exit(UNKNOWN)
}

/// Of the status that a parent waits for; None: it has not ended, but stopped.
fn code(status: i32) -> Option<i32> {
    if libc::WIFEXITED(status) {
        Some(libc::WEXITSTATUS(status))
    } else {
        libc::WIFSIGNALED(status).then(|| 128 + libc::WTERMSIG(status))
    }
}

fn exit(code: i32) -> Exit {
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Exit {
        code,
        at_ms: at.as_millis() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// One that is no child of whoever asks: started by a shell that tells its pid and ends.
    fn orphan(line: &str) -> Task {
        let script = format!("({line}) >/dev/null 2>&1 </dev/null & echo $!");
        let output = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let pid = String::from_utf8(output.stdout).unwrap();
        Task::of(pid.trim().parse().unwrap()).unwrap()
    }

    #[test]
    fn the_exit_code_of_a_process_that_is_no_child_is_learned_where_the_kernel_tells() {
        let init = Init::adopt(orphan("sleep 0.3; exit 42")).unwrap().unwrap();
        assert_eq!(init.ended(), None);
        init.reap();
        let code = init.ended().unwrap().code;
        assert!(matches!(code, 42 | UNKNOWN), "{code}");
        let init = Init::adopt(orphan("exec sleep 100")).unwrap().unwrap();
        init.signal(9).unwrap();
        init.reap();
        let code = init.ended().unwrap().code;
        assert!(matches!(code, 137 | UNKNOWN), "{code}");
        println!("{code}");
    }

    #[test]
    fn a_process_that_ended_before_it_was_taken_up_is_not_taken_for_another() {
        let mut child = Command::new("true").spawn().unwrap();
        let task = Task::of(child.id() as i32).unwrap();
        child.wait().unwrap();
        assert!(Init::adopt(task).unwrap().is_none());
    }
}
