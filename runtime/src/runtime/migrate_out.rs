//! A container leaves: check, freeze, what to send, and the two ends, thaw and release.

use std::{fs, path::Path, time::Instant};

use godwit_types::{ContainerId, FreezeStep, InstanceState, MigrationId};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{
    checkpoint::CheckpointFile,
    network::Hold,
    rootfs::{
        Rootfs,
        diff::{self, Ahead},
        size,
    },
    shim::protocol::{Request, State},
};

/// The writable layer, among the checkpoint's files.
pub(super) const ROOTFS: &str = "rootfs";

impl Runtime {
    /// Could it be dumped? Answers the bytes that a destination must have room for.
    pub async fn check_source(&self, id: &ContainerId) -> Result<u64> {
        let pid = match self.state(id).await? {
            InstanceState::Running { pid } => pid,
            other => return Err(self.wrong_state(id, &other, "running")),
        };
        if let Some(problem) = &self.inner.facts.criu_problem {
            return Err(RuntimeError::NoCriu(problem.clone()));
        }
        let paths = self.paths(id);
        let cgroup = self.cgroup(id);
        let need = blocking(move || {
            let memory: u64 = crate::cgroup::Group::new(&cgroup)?
                .processes()?
                .into_iter()
                .chain([pid])
                .map(resident)
                .sum();
            // Counted twice: as it arrives, and unpacked.
            let layer = size(&Rootfs::new(&paths.rootfs()).upper())?;
            let log = fs::metadata(paths.log()).map_or(0, |metadata| metadata.len());
            Ok(memory + 2 * layer + 2 * log)
        })
        .await?;
        let free = self.disk_free();
        if need > free {
            return Err(RuntimeError::NoRoom { need, free });
        }
        Ok(need)
    }

    /// The container's processes, as this host numbers them.
    pub async fn processes(&self, id: &ContainerId) -> Result<Vec<i32>> {
        let cgroup = self.cgroup(id);
        blocking(move || Ok(crate::cgroup::Group::new(&cgroup)?.processes()?)).await
    }

    /// Leaves a running container so many percent of its processors; None: all that it had.
    pub async fn throttle(&self, id: &ContainerId, percent: Option<u32>) -> Result<()> {
        let limits = self.spec(id)?.limits;
        let cgroup = self.cgroup(id);
        blocking(move || Ok(crate::cgroup::Group::new(&cgroup)?.throttle(&limits, percent)?)).await
    }

    /// Why private memory can't be carried ahead of a freeze on this host. None: it can.
    pub fn carry_problem(&self) -> Option<&str> {
        self.inner.carry_problem.as_deref()
    }

    /// Waits until all memory of a container that arrived is in place: before, it can't leave.
    pub async fn filled(&self, id: &ContainerId) -> Result<()> {
        loop {
            match self.shim(id).state().await? {
                filling @ State::Running { filling: true, .. } => {
                    self.shim(id).watch(filling).await?;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Gate shut, everything dumped and held. After a failure the container runs on. `carried`:
    /// the caller brings its private memory over. `layer`: what the destination has of its layer
    /// by then, if only the rest is to go.
    pub async fn freeze(
        &self,
        id: &ContainerId,
        migration: &MigrationId,
        carried: bool,
        layer: Option<Ahead>,
    ) -> Result<Vec<FreezeStep>> {
        self.hold(id);
        let request = Request::Freeze {
            migration: migration.clone(),
            carried,
        };
        let asked = self.shim(id).ask(request).await;
        if asked.is_err() {
            self.deliver_here(id);
        }
        let mut steps = asked?;
        let paths = self.paths(id);
        let packed = blocking(move || {
            let began = Instant::now();
            let path = paths.checkpoint().join(ROOTFS);
            let failed = |source| RuntimeError::Io {
                path: path.clone(),
                source,
            };
            let file = fs::File::create(&path).map_err(failed)?;
            match layer {
                Some(layer) => layer.finish(file)?,
                None => diff::pack(&Rootfs::new(&paths.rootfs()).upper(), file)?,
            };
            Ok(FreezeStep::new("pack writable layer", began.elapsed()))
        })
        .await;
        match packed {
            Ok(step) => {
                steps.push(step);
                Ok(steps)
            }
            Err(error) => {
                self.thaw(id).await?;
                Err(error)
            }
        }
    }

    /// While frozen: what to send, in order. Without its private memory, if the caller has that.
    pub async fn outgoing(&self, id: &ContainerId, carried: bool) -> Result<Vec<CheckpointFile>> {
        if let State::Frozen { carried: was, .. } = self.shim(id).state().await?
            && was != carried
        {
            return Err(RuntimeError::MemoryLost(id.short().to_owned()));
        }
        let paths = self.paths(id);
        blocking(move || {
            let mut files = Vec::new();
            let checkpoint = paths.checkpoint();
            collect(&checkpoint.join("criu"), "criu/", &mut files)?;
            collect(&paths.etc(), "etc/", &mut files)?;
            for (name, path) in [(ROOTFS, checkpoint.join(ROOTFS)), ("log", paths.log())] {
                if let Ok(metadata) = fs::metadata(&path) {
                    files.push(CheckpointFile {
                        name: name.to_owned(),
                        path,
                        size: metadata.len(),
                    });
                }
            }
            Ok(files)
        })
        .await
    }

    /// Holds what comes for the container from now on. Without, it only comes later.
    fn hold(&self, id: &ContainerId) {
        let Ok(Some(attachment)) = self.spec(id).map(|spec| spec.network) else {
            return;
        };
        match Hold::new(attachment.mac()) {
            Ok(hold) => drop(self.holds().insert(id.clone(), hold)),
            Err(error) => {
                tracing::warn!(container = id.short(), %error, "packets can't be held");
            }
        }
    }

    fn deliver_here(&self, id: &ContainerId) {
        let Some(hold) = self.holds().remove(id) else {
            return;
        };
        let delivered = self.networks().deliver_here(hold, id);
        told(id, delivered);
    }

    async fn deliver_remote(&self, id: &ContainerId) {
        let Some(hold) = self.holds().remove(id) else {
            return;
        };
        let Ok(Some(attachment)) = self.spec(id).map(|spec| spec.network) else {
            return;
        };
        told(id, self.networks().deliver_remote(hold, &attachment).await);
    }

    pub(super) fn holds(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<ContainerId, Hold>> {
        self.inner.holds.lock().expect("no holder panics")
    }

    /// Run on, gate open. Harmless when it runs.
    pub async fn thaw(&self, id: &ContainerId) -> Result<()> {
        match self.state(id).await? {
            InstanceState::Frozen { .. } => {
                self.shim(id).ask(Request::Thaw).await?;
                self.deliver_here(id);
                Ok(())
            }
            // It has ended meanwhile: nothing is held.
            InstanceState::Running { .. } | InstanceState::Exited { .. } => Ok(()),
            other => Err(self.wrong_state(id, &other, "frozen")),
        }
    }

    /// Kill the held tasks and leave nothing of the instance. Harmless when it is gone.
    pub async fn release(&self, id: &ContainerId) -> Result<()> {
        match self.state(id).await {
            Ok(InstanceState::Frozen { .. }) => {
                // First of all: its clients wait for it.
                self.deliver_remote(id).await;
                self.shim(id).ask(Request::Release).await?;
            }
            Ok(other @ InstanceState::Running { .. }) => {
                // Never: a container that runs here is not let go of by a late command.
                return Err(self.wrong_state(id, &other, "frozen"));
            }
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            _ => {}
        }
        self.clear(id).await
    }
}

fn told(id: &ContainerId, delivered: Result<usize, crate::network::NetworkError>) {
    match delivered {
        Ok(packets) => {
            tracing::debug!(container = id.short(), packets, "held packets delivered");
        }
        Err(error) => {
            tracing::warn!(container = id.short(), %error, "held packets not delivered");
        }
    }
}

/// Bytes of memory a process has, as its destination will need them.
fn resident(pid: i32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * rustix::param::page_size() as u64)
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<CheckpointFile>) -> Result<()> {
    let failed = |source| RuntimeError::Io {
        path: dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        if metadata.is_file() {
            files.push(CheckpointFile {
                name: format!("{prefix}{}", entry.file_name().to_string_lossy()),
                path: entry.path(),
                size: metadata.len(),
            });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}
