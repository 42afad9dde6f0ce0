//! A shim that begins with the container of another one, which was killed.
//!
//! Frozen, it stays frozen: somebody may have been told so, and only who asked for it knows how it
//! goes on. In any other case it runs, gate open, as if no dump had been begun: whoever had begun
//! one has been told that it failed, or will be.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    super::protocol::{Config, feed},
    create::chain,
    freeze::{Frozen, gate, remove_checkpoint},
    init::{self, Init},
    machine::{Adopted, Machine},
    output::Output,
    pager::Pager,
};
use crate::{
    cgroup::Group,
    shim::kept::{self, Kept},
};

/// How long a CRIU that has lost its shim may take to let go of the tasks, and the time between two
/// looks. Killed, it would leave them as it had changed them.
const LETS_GO: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

pub fn adopt(config: Config) -> Result<Machine, String> {
    let kept = Kept::read(&kept::path(&config.socket))
        .map_err(|error| format!("what was kept can't be read: {error}"))?
        .ok_or("nothing that could be taken up was kept")?;
    let pid = kept.init.pid;
    let init = Init::adopt(kept.init).map_err(|error| format!("init {pid}: {error}"))?;
    let Some(init) = init else {
        tracing::warn!(pid, "it ended while it had no shim");
        return Ok(Machine::ended(config, init::unknown()));
    };
    let group = Group::new(&config.cgroup).map_err(|error| chain(&error))?;
    let pids = group.processes().map_err(|error| chain(&error))?;
    let keys = (kept.stdout.clone(), kept.stderr.clone());
    let output = Output::adopt(
        &config.dir.join(crate::log::FILE),
        &config.terminal.log,
        keys,
        &pids,
    )
    .map_err(|error| format!("output can't be taken up: {error}"))?;
    let pager = match kept.pager {
        Some(task) => {
            Pager::adopt(task, &feed(&config.socket)).map_err(|error| error.to_string())?
        }
        None => None,
    };
    untraced(&pids);
    let frozen = match &kept.frozen {
        Some(held) => Some(Frozen::adopt(held.clone(), &group)?),
        None => {
            gate(&config, true)?;
            group.thaw().map_err(|error| chain(&error))?;
            remove_checkpoint(&config);
            None
        }
    };
    tracing::warn!(
        pid,
        frozen = frozen.is_some(),
        "taken up after its shim was killed"
    );
    let adopted = Adopted {
        init,
        output,
        pager,
        frozen,
    };
    Ok(Machine::with(config, kept, adopted))
}

/// Waits until nobody traces them.
fn untraced(pids: &[i32]) {
    let traced = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        tracer.is_some_and(|tracer| tracer.trim() != "0")
    };
    let deadline = Instant::now() + LETS_GO;
    while pids.iter().any(traced) {
        if Instant::now() > deadline {
            tracing::warn!("somebody still traces it");
            return;
        }
        thread::sleep(LOOK);
    }
}
