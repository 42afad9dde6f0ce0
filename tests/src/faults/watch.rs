//! Whether ever more than one copy of a container ran.

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, anyhow};

use crate::testbed::cgroups;

/// Between two looks at all processes.
const LOOK: Duration = Duration::from_millis(3);

/// Looks until it is told to end.
pub struct Watch {
    over: Arc<AtomicBool>,
    seen: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `groups`: the container's cgroup on each host, as `/proc/PID/cgroup` has it.
    pub fn begin(groups: Vec<String>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(None));
        let thread = thread::spawn({
            let (over, seen) = (over.clone(), seen.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    let running = running(&groups);
                    if running.len() > 1 && self::running(&groups).len() > 1 {
                        let text = running.join(" and ");
                        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
                    }
                    thread::sleep(LOOK);
                }
            }
        });
        Self {
            over,
            seen,
            thread: Some(thread),
        }
    }

    /// An error: two ran at once.
    pub fn end(mut self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the watch broke off"))?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.take() {
            Some(two) => Err(anyhow!("two copies ran at once: {two}")),
            None => Ok(()),
        }
    }
}

/// The groups with a process that is neither stopped, traced, frozen nor dead.
fn running(groups: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let Some(group) = groups.iter().find(|group| own.contains(*group)) else {
            continue;
        };
        if !found.contains(group) && goes(pid) && !frozen(group) {
            found.push(group.clone());
        }
    }
    found
}

/// The kernel shows a frozen process as one that sleeps.
fn frozen(group: &str) -> bool {
    let group = group.trim_start_matches('/');
    cgroups::roots().iter().any(|root| {
        let events = fs::read_to_string(root.join(group).join("cgroup.events"));
        events.is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    })
}

/// Only the program itself counts: what restores it is in its group, too.
fn goes(pid: i32) -> bool {
    let workload = fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.ends_with("bin/godwit-workload"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    workload && line("TracerPid:") == "0" && line("State:").starts_with(['R', 'S'])
}
