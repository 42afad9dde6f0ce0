//! How much memory a move takes on its destination, on top of what was there.
//!
//! Sampled while the move goes on: anonymous memory of all processes of the destination (agent,
//! shim, CRIU, the restored container), from `RssAnon` in `/proc/PID/status`, plus what this
//! machine holds in tmpfs, memfds and shared memory (`Shmem` in `/proc/meminfo`). Neither counts
//! page cache of files on disk, which the kernel gives back. A peak between two samples is missed.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::testbed::Host;

const EVERY: Duration = Duration::from_millis(20);

/// Samples until it is asked for its result.
pub struct Peak {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    before: u64,
}

impl Peak {
    pub fn watch(host: &Host) -> Self {
        let (pid, stop) = (host.pid(), Arc::new(AtomicBool::new(false)));
        let before = taken(pid);
        let theirs = stop.clone();
        let thread = thread::spawn(move || {
            let mut most = before;
            while !theirs.load(Ordering::SeqCst) {
                most = most.max(taken(pid));
                thread::sleep(EVERY);
            }
            most
        });
        Self {
            stop,
            thread,
            before,
        }
    }

    /// Bytes above what there was at the beginning.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        let most = self.thread.join().ok().context("the sampler panicked")?;
        Ok(most.saturating_sub(self.before))
    }
}

fn taken(host: i32) -> u64 {
    let anonymous: u64 = tree(host).into_iter().map(anonymous).sum();
    anonymous + shared()
}

/// Anonymous bytes of a container's processes on this host, by their program's name.
pub fn of_program(host: &Host, program: &str) -> u64 {
    let is_program = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
    };
    let mut pids = tree(host.pid());
    pids.retain(is_program);
    of_processes(&pids)
}

/// Anonymous bytes of these processes.
pub fn of_processes(pids: &[i32]) -> u64 {
    pids.iter().copied().map(anonymous).sum()
}

/// A process and all its descendants. Nothing else lives in a test host.
fn tree(pid: i32) -> Vec<i32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        next += 1;
        // Children are listed by the thread that forked them.
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// 0 for one that has ended.
fn anonymous(pid: i32) -> u64 {
    field(&format!("/proc/{pid}/status"), "RssAnon:")
}

fn shared() -> u64 {
    field("/proc/meminfo", "Shmem:")
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kib: u64| kib * 1024)
}
