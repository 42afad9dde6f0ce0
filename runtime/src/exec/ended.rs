//! The end of what was started in a container from outside, right before it is dumped: noted
//! first, so that whoever looks at it is told why.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use godwit_types::MigrationId;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::{
    cgroup::{Group, strangers},
    container::write_atomic,
};

/// In the instance's directory.
pub const FILE: &str = "ended.json";
/// What is killed and does not run any more needs this long at most.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    migration: MigrationId,
    pids: Vec<i32>,
}

/// Ends them and waits until they are gone. Answers how many there were.
pub fn end_all(
    dir: &Path,
    group: &Group,
    init: i32,
    migration: &MigrationId,
) -> Result<usize, String> {
    let find = || -> Result<Vec<i32>, String> {
        let pids = group.processes().map_err(|error| error.to_string())?;
        Ok(strangers(&pids, init))
    };
    let mut found = find()?;
    let count = found.len();
    let deadline = Instant::now() + PATIENCE;
    while !found.is_empty() {
        let ended = Ended {
            migration: migration.clone(),
            pids: found.clone(),
        };
        write_atomic(&dir.join(FILE), &ended).map_err(|error| format!("`{FILE}`: {error}"))?;
        for pid in &found {
            if let Some(pid) = Pid::from_raw(*pid) {
                // An error: it has ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if Instant::now() > deadline {
            return Err(format!("{} processes of `exec` do not end", found.len()));
        }
        thread::sleep(Duration::from_millis(1));
        found = find()?;
    }
    Ok(count)
}

/// Whether this process was ended for a migration, and for which.
pub fn migration_of(file: &Path, pid: i32) -> Option<MigrationId> {
    let ended: Ended = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    ended.pids.contains(&pid).then_some(ended.migration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_noted_was_ended_for_a_migration() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        assert_eq!(migration_of(&file, 7), None);
        let migration = MigrationId::from_bytes([1; 8]);
        let ended = Ended {
            migration: migration.clone(),
            pids: vec![7],
        };
        write_atomic(&file, &ended).unwrap();
        assert_eq!(migration_of(&file, 7), Some(migration));
        assert_eq!(migration_of(&file, 8), None);
    }
}
