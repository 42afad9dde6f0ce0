//! What a shim keeps of its container outside of itself, so that another one can take it up when
//! it is killed: `RUN/shims/ID.kept`, one JSON document, written whole with every change.
//!
//! It is beside the socket and not on the disk: it names processes, which no reboot outlives, and a
//! full disk must not be in its way. A pid may come again, so each is kept with its start.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use godwit_types::MigrationId;
use serde::{Deserialize, Serialize};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// In `/proc/PID/stat`, counted from the state.
const START: usize = 19;

/// Where the shim that has this socket keeps it.
pub fn path(socket: &Path) -> PathBuf {
    socket.with_extension("kept")
}

/// Locked by the shim that has this socket, as long as it lives.
pub fn lock(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

/// Made by a pager that has delivered everything. `feed`: its socket.
pub fn paged(feed: &Path) -> PathBuf {
    feed.with_extension("paged")
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Of the machine: what was kept in another one means nothing.
    pub boot: String,
    pub init: Task,
    /// The container's output, as `pipe:[inode]`.
    pub stdout: String,
    pub stderr: String,
    /// Holds memory that is not in the container yet.
    #[serde(default)]
    pub pager: Option<Task>,
    /// Dumped and held; None: it runs.
    #[serde(default)]
    pub frozen: Option<Held>,
    /// The CRIU that restored it and has not been seen to let it run.
    #[serde(default)]
    pub restorer: Option<Task>,
}

/// What a frozen container is held for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub migration: MigrationId,
    /// Its private memory is not in the dump.
    pub carried: bool,
}

/// One process, and no other that has its pid later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub pid: i32,
    /// In clock ticks since the boot.
    pub start: u64,
}

impl Task {
    pub fn of(pid: i32) -> io::Result<Self> {
        let start = stat(pid)?.get(START).and_then(|text| text.parse().ok());
        let start = start.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start })
    }

    /// A zombie is there, too.
    pub fn is_there(&self) -> bool {
        Self::of(self.pid).is_ok_and(|found| found == *self)
    }

    pub fn lives(&self) -> bool {
        let state = stat(self.pid)
            .ok()
            .and_then(|fields| fields.into_iter().next());
        self.is_there() && !matches!(state.as_deref(), None | Some("Z" | "X"))
    }
}

/// Of `/proc/PID/stat`, from the state on: what is before it may have spaces in it.
pub(super) fn stat(pid: i32) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    Ok(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

impl Kept {
    pub fn new(init: Task, stdout: String, stderr: String) -> io::Result<Self> {
        Ok(Self {
            boot: boot()?,
            init,
            stdout,
            stderr,
            pager: None,
            frozen: None,
            restorer: None,
        })
    }

    /// Replaces what was kept.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("kept-new");
        // Not flushed: what a power cut takes away is worth nothing after it.
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(beside, path)
    }

    /// None: nothing was kept since this machine was started.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept: Self = serde_json::from_slice(&text)?;
        Ok((kept.boot == boot()?).then_some(kept))
    }
}

/// Nothing there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string(BOOT)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let own = Task::of(std::process::id() as i32).unwrap();
        Kept::new(own, "pipe:[1]".into(), "pipe:[2]".into()).unwrap()
    }

    #[test]
    fn what_was_kept_is_read_again_in_this_boot_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.kept");
        assert_eq!(Kept::read(&path).unwrap(), None);
        let mut kept = kept();
        kept.frozen = Some(Held {
            migration: MigrationId::from_bytes([3; 8]),
            carried: true,
        });
        kept.write(&path).unwrap();
        assert_eq!(Kept::read(&path).unwrap(), Some(kept.clone()));
        kept.boot = "another".to_owned();
        kept.write(&path).unwrap();
        assert_eq!(Kept::read(&path).unwrap(), None);
        fs::write(&path, "{").unwrap();
        assert!(Kept::read(&path).is_err());
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_pid_that_came_again_is_another_process() {
        let own = kept().init;
        assert!(own.lives());
        let earlier = Task {
            start: own.start - 1,
            ..own
        };
        assert!(!earlier.lives() && !earlier.is_there());
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_there_and_does_not_live() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let task = Task::of(child.id() as i32).unwrap();
        while task.lives() {
            std::thread::yield_now();
        }
        assert!(task.is_there());
        child.wait().unwrap();
        assert!(!task.is_there());
    }
}
