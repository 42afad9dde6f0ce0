//! A container leaves: check, freeze, what to send, and the two ends, thaw and release.

use std::{fs, path::Path, time::Instant};

use godwit_types::{ContainerId, FreezeStep, InstanceState, MigrationId, Need};

use super::{
    Result, Runtime, RuntimeError, blocking,
    layer::{LAYER, Moving, volume_part},
    volumes,
};
use crate::{
    checkpoint::CheckpointFile,
    memory::{Left, Session},
    network::Hold,
    rootfs::{Rootfs, diff, size},
    shim::protocol::{Request, State},
    unmovable::unmovable,
};

/// The writable layer, among the checkpoint's files.
pub(super) const ROOTFS: &str = "rootfs";
/// Bytes that CRIU writes besides memory that could be carried, about: seen with one process of
/// five threads were 200 KiB.
const IMAGES: u64 = 512 << 10;
const IMAGES_OF_PROCESS: u64 = 256 << 10;

impl Runtime {
    /// Could it be dumped? Answers what a destination must have room for. `carried`: the caller
    /// would bring its private memory over.
    pub async fn check_source(&self, id: &ContainerId, carried: bool) -> Result<Need> {
        let need = self.need(id, carried).await?;
        if let Some(problem) = &self.inner.facts.criu_problem {
            return Err(RuntimeError::NoCriu(problem.clone()));
        }
        let pids = self.processes(id).await?;
        if let Some(text) = blocking(move || Ok(unmovable(&pids))).await? {
            return Err(RuntimeError::Unmovable(text));
        }
        let (need_here, free) = (need.disk, self.disk_free());
        if need_here > free {
            return Err(RuntimeError::NoRoom {
                need: need_here,
                free,
            });
        }
        Ok(need)
    }

    /// What a destination must have room for.
    pub async fn need(&self, id: &ContainerId, carried: bool) -> Result<Need> {
        let pid = match self.state(id).await? {
            InstanceState::Running { pid } => pid,
            other => return Err(self.wrong_state(id, &other, "running")),
        };
        let paths = self.paths(id);
        let cgroup = self.cgroup(id);
        let (spec, volumes_) = (self.spec(id)?, self.inner.volumes.clone());
        blocking(move || {
            let mut pids = crate::cgroup::Group::new(&cgroup)?.processes()?;
            if !pids.contains(&pid) {
                pids.push(pid);
            }
            let memory = Resident::of_all(&pids);
            // Counted twice: as it arrives, and unpacked.
            let layer =
                size(&Rootfs::new(&paths.rootfs()).upper())? + volumes::bytes(&spec, &volumes_)?;
            let log = fs::metadata(paths.log()).map_or(0, |metadata| metadata.len());
            let dumped = if carried { memory.shared } else { memory.all() };
            let images = IMAGES + pids.len() as u64 * IMAGES_OF_PROCESS;
            Ok(Need {
                disk: dumped + images + 2 * layer + 2 * log,
                memory: memory.all(),
            })
        })
        .await
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
        self.inner.carried_by.as_ref().err().map(String::as_str)
    }

    /// Memory on its way out of this host, tracked as its kernel can.
    pub fn session(&self) -> Session {
        Session::new(self.inner.carried_by.as_ref().copied().unwrap_or_default())
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
    /// the caller brings its private memory over. `moving`: what the destination has of its layer
    /// and its volumes by then, where only the rest is to go.
    pub async fn freeze(
        &self,
        id: &ContainerId,
        migration: &MigrationId,
        carried: bool,
        moving: Vec<Moving>,
    ) -> Result<Vec<FreezeStep>> {
        let began = Instant::now();
        self.hold(id);
        let held = FreezeStep::new("hold packets", began.elapsed()).while_running();
        let request = Request::Freeze {
            migration: migration.clone(),
            carried,
        };
        let asked = self.shim(id).ask(request).await;
        if asked.is_err() {
            self.deliver_here(id).await;
        }
        let mut steps = asked?;
        steps.insert(0, held);
        let paths = self.paths(id);
        let volumes = self.volumes_of(id);
        let packed = blocking(move || {
            let began = Instant::now();
            let mut moving = moving;
            let upper = Rootfs::new(&paths.rootfs()).upper();
            let layer = std::iter::once((LAYER.to_owned(), ROOTFS.to_owned(), upper));
            let volumes = volumes?.into_iter().map(|(id, data)| {
                let name = volume_part(&id);
                (name.clone(), name, data)
            });
            for (name, file, dir) in layer.chain(volumes) {
                let path = paths.checkpoint().join(file);
                let file =
                    fs::File::create(&path).map_err(|source| RuntimeError::Io { path, source })?;
                match moving.iter().position(|moving| moving.name() == name) {
                    Some(at) => moving.swap_remove(at).finish(file)?,
                    None => drop(diff::pack(&dir, file)?),
                }
            }
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
        let volumes = self.volumes_of(id);
        blocking(move || {
            let mut files = Vec::new();
            let checkpoint = paths.checkpoint();
            collect(&checkpoint.join("criu"), "criu/", &mut files)?;
            collect(&paths.etc(), "etc/", &mut files)?;
            let mut others = vec![
                (ROOTFS.to_owned(), checkpoint.join(ROOTFS)),
                ("log".to_owned(), paths.log()),
            ];
            for (volume, _) in volumes? {
                let name = volume_part(&volume);
                others.push((name.clone(), checkpoint.join(name)));
            }
            for (name, path) in others {
                if let Ok(metadata) = fs::metadata(&path) {
                    files.push(CheckpointFile {
                        name,
                        path,
                        size: metadata.len(),
                    });
                }
            }
            Ok(files)
        })
        .await
    }

    /// While frozen: what a post-copy left behind. None: no task is held here any more.
    pub async fn left(&self, id: &ContainerId, migration: &MigrationId) -> Result<Option<Left>> {
        match self.state(id).await {
            Ok(InstanceState::Frozen { migration: held }) if held == *migration => {}
            // It would have written to what it left behind.
            Ok(other @ InstanceState::Running { .. }) => {
                return Err(self.wrong_state(id, &other, "frozen"));
            }
            Ok(_) | Err(RuntimeError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        let pids = self.processes(id).await?;
        let short = id.short().to_owned();
        let left = blocking(move || Ok(Left::new(&pids))).await?;
        left.map(Some)
            .map_err(|source| RuntimeError::LeftBehind { id: short, source })
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

    async fn deliver_here(&self, id: &ContainerId) {
        let Some(hold) = self.holds().remove(id) else {
            return;
        };
        told(id, self.networks().deliver_here(hold, id).await);
    }

    /// Gives what was held to where the container runs now. Once is enough.
    pub async fn deliver_remote(&self, id: &ContainerId) {
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
                self.deliver_here(id).await;
                Ok(())
            }
            // It has ended meanwhile, or a freeze was broken off: no task is held, but packets may be.
            InstanceState::Running { .. } | InstanceState::Exited { .. } => {
                self.deliver_here(id).await;
                Ok(())
            }
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
        self.release_volumes(id).await?;
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

/// Bytes of memory that a container has, swapped out or not. No pages of files: they are on the
/// other host too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Resident {
    private: u64,
    /// At least: several processes may have the same, or each its own.
    shared: u64,
}

impl Resident {
    fn of_all(pids: &[i32]) -> Self {
        let mut all = Self::default();
        for pid in pids {
            // None: it has ended.
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let one = Self::of(&status);
            all.private += one.private;
            all.shared = all.shared.max(one.shared);
        }
        all
    }

    fn of(status: &str) -> Self {
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_ascii_whitespace().next());
            number
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
        };
        Self {
            private: (kib("RssAnon:") + kib("VmSwap:")) * 1024,
            shared: kib("RssShmem:") * 1024,
        }
    }

    fn all(self) -> u64 {
        self.private + self.shared
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resident_is_read_from_the_status() {
        let status = "Name:\tx\nVmSwap:\t       1 kB\nRssAnon:\t      20 kB\n\
                      RssFile:\t     300 kB\nRssShmem:\t       4 kB\n";
        let resident = Resident {
            private: 21 << 10,
            shared: 4 << 10,
        };
        assert_eq!(Resident::of(status), resident);
        assert_eq!(resident.all(), 25 << 10);
        assert_eq!(Resident::of(""), Resident::default());
    }
}
