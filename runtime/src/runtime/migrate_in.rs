//! A container arrives: check, prepare, stage, and the two ends, resume and discard.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use godwit_types::{ContainerId, ContainerSpec, FreezeStep, InstanceState, MigrationId, Need};

use tokio::time::timeout;

use super::{
    Result, Runtime, RuntimeError, blocking,
    layer::{LAYER, bring, bring_volumes},
    migrate_out::ROOTFS,
};
use crate::{
    cgroup::Group,
    checkpoint::Incoming,
    container::{make_in_memory, remove_images, remove_tree, write_atomic},
    memory,
    network::Gate,
    rootfs::{Rootfs, diff::Mark},
    shim::{
        held,
        protocol::{Request, State, feed},
    },
};

/// Between two looks whether the pager takes memory yet: it lies in the freeze.
const FEED_PAUSE: Duration = Duration::from_millis(1);
/// For the shim to say that it does not restore.
const FEED_ASK: Duration = Duration::from_millis(10);

impl Runtime {
    /// Image, CRIU, room, and no instance of it here. Changes nothing.
    pub async fn check_destination(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        need: Need,
    ) -> Result<()> {
        if let Some(problem) = &self.inner.facts.criu_problem {
            return Err(RuntimeError::NoCriu(problem.clone()));
        }
        self.image_of(spec)?;
        self.check_binds(spec)?;
        self.check_ports(spec).await?;
        let memory = need.memory;
        let (need, free) = (need.disk, self.disk_free());
        if need > free {
            return Err(RuntimeError::NoRoom { need, free });
        }
        let free = self.memory_free();
        if memory > free {
            return Err(RuntimeError::NoMemory { need: memory, free });
        }
        match self.state(id).await {
            Err(RuntimeError::NotFound(_)) => Ok(()),
            Ok(InstanceState::Running { pid }) => {
                Err(self.wrong_state(id, &InstanceState::Running { pid }, "absent"))
            }
            // What an earlier attempt left: `prepare` clears it.
            _ => Ok(()),
        }
    }

    /// Everything that can be made before the freeze.
    pub async fn prepare(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        migration: &MigrationId,
    ) -> Result<()> {
        match self.state(id).await {
            Ok(running @ InstanceState::Running { .. }) => {
                return Err(self.wrong_state(id, &running, "absent"));
            }
            Err(RuntimeError::NotFound(_)) => {}
            _ => self.discard(id).await?,
        }
        let made = self.prepare_new(id, spec, migration).await;
        if made.is_err()
            && let Err(error) = self.discard(id).await
        {
            tracing::warn!(container = id.short(), %error, "failed prepare left something behind");
        }
        made
    }

    async fn prepare_new(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        migration: &MigrationId,
    ) -> Result<()> {
        self.image_of(spec)?;
        self.check_binds(spec)?;
        let paths = self.paths(id);
        self.make_directory(&paths, spec)?;
        self.expect_volumes(id, spec).await?;
        self.reserve_ports(id, spec).await?;
        make_in_memory(&paths.incoming().join("criu")).map_err(|source| RuntimeError::Io {
            path: paths.incoming(),
            source,
        })?;
        let netns = self.attach(id, spec, Gate::Shut).await?;
        let config = self.shim_config(id, spec, netns);
        write_atomic(&paths.shim_config(), &config).map_err(|source| RuntimeError::Io {
            path: paths.shim_config(),
            source,
        })?;
        self.start_shim(&paths).await?;
        self.shim(id)
            .ask(Request::Arm {
                migration: migration.clone(),
            })
            .await?;
        Ok(())
    }

    /// Where received files go.
    pub fn incoming(&self, id: &ContainerId) -> Result<Incoming> {
        let dir = self.paths(id).incoming();
        if dir.is_dir() {
            Ok(Incoming::new(&dir))
        } else {
            Err(RuntimeError::NotFound(id.short().to_owned()))
        }
    }

    /// Restore and hold, gate shut. `memory`: what came ahead of the checkpoint, if it did.
    /// `layers`: what the parts of the writable layer and of volumes came to that did, by name.
    pub async fn stage(
        &self,
        id: &ContainerId,
        memory: Option<memory::Store>,
        layers: BTreeMap<String, Mark>,
    ) -> Result<Vec<FreezeStep>> {
        match self.state(id).await? {
            InstanceState::Staged { .. } => {}
            other => return Err(self.wrong_state(id, &other, "staged")),
        }
        let spec = self.spec(id)?;
        let image = self.image_of(&spec)?;
        let paths = self.paths(id);
        let volumes = self.inner.volumes.clone();
        let spec_ = spec.clone();
        let mut steps = blocking(move || {
            let began = Instant::now();
            let incoming = paths.incoming();
            let rootfs = Rootfs::new(&paths.rootfs());
            if !rootfs.is_mounted() {
                let mark = |name: &str| layers.get(name).copied().unwrap_or_default();
                bring_volumes(&incoming, &spec_, &volumes, mark)?;
                bring(&incoming.join(ROOTFS), &rootfs, mark(LAYER))?;
                rootfs.mount(&image.layers)?;
                take(&incoming.join("log"), &paths.log())?;
                for name in ["hosts", "hostname", "resolv.conf"] {
                    take(&incoming.join("etc").join(name), &paths.etc().join(name))?;
                }
            }
            Ok(vec![FreezeStep::new("mount", began.elapsed())])
        })
        .await?;
        let index = memory.map(memory::Store::index).transpose()?;
        let request = Request::Stage {
            memory: index.as_ref().map(memory::Index::at),
        };
        // The pager has everything open itself when this is answered.
        steps.extend(self.shim(id).ask(request).await?);
        drop(index);
        Ok(steps)
    }

    /// Run, gate open, announce. Harmless when it runs. Answers the pid.
    pub async fn resume(&self, id: &ContainerId) -> Result<(i32, Vec<FreezeStep>)> {
        let steps = self.shim(id).ask(Request::Resume).await?;
        self.volumes_arrived(id).await;
        // It runs: nobody has to wait for what follows.
        let (runtime, id_) = (self.clone(), id.clone());
        tokio::spawn(async move { runtime.settle(&id_).await });
        match self.state(id).await? {
            InstanceState::Running { pid } => Ok((pid, steps)),
            InstanceState::Exited { .. } => Ok((0, steps)),
            other => Err(self.wrong_state(id, &other, "running")),
        }
    }

    /// Whether it is certain that what was staged here never ran, and that it never will: its shim
    /// has ended before it resumed anything, in this boot of the machine. What is left of it is
    /// killed first.
    pub async fn never_resumed(&self, id: &ContainerId) -> bool {
        if !matches!(self.state(id).await, Ok(InstanceState::Lost { .. })) {
            return false;
        }
        let (held, cgroup) = (self.paths(id).held(), self.cgroup(id));
        let proven = blocking(move || {
            if !held::is_proof(&held) {
                return Ok(false);
            }
            Group::new(&cgroup)?.kill()?;
            Ok(true)
        });
        match proven.await {
            Ok(proven) => proven,
            Err(error) => {
                tracing::warn!(container = id.short(), %error, "what is left can't be killed");
                false
            }
        }
    }

    /// Where memory goes that comes while the container is restored here, or runs already. Waits for
    /// a restore to begin. None: it has all, or it is not here.
    pub async fn feed(&self, id: &ContainerId) -> Result<Option<UnixStream>> {
        let path = feed(&self.paths(id).socket);
        loop {
            let at = path.clone();
            match blocking(move || Ok(UnixStream::connect(at))).await? {
                Ok(stream) => return Ok(Some(stream)),
                // CRIU is not that far yet, or the pager has ended this moment.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) => {}
                Err(source) => return Err(RuntimeError::Io { path, source }),
            }
            let shim = self.shim(id);
            match timeout(FEED_ASK, shim.state()).await {
                Ok(Ok(State::Staged { .. } | State::Running { filling: true, .. })) => {}
                // It restores, and answers nobody until it has.
                Err(_) => {}
                Ok(_) => return Ok(None),
            }
            tokio::time::sleep(FEED_PAUSE).await;
        }
    }

    /// What is left to do once it runs: tell the neighbourhood, and free what it came in.
    async fn settle(&self, id: &ContainerId) {
        let spec = self.spec(id).ok();
        if let Some(spec) = &spec
            && let Err(error) = self.publish(id, spec).await
        {
            tracing::warn!(container = id.short(), %error, "ports not published");
        }
        let attachment = spec.and_then(|spec| spec.network);
        if let Some(attachment) = attachment
            && let Err(error) = self.networks().announce(id, &attachment).await
        {
            // Neighbours that were not told ask when their entry expires.
            tracing::warn!(container = id.short(), %error, "new place not announced");
        }
        let incoming = self.paths(id).incoming();
        let removed = blocking(move || {
            remove_images(&incoming.join("criu"))
                .and_then(|()| remove_tree(&incoming))
                .map_err(|source| RuntimeError::Io {
                    path: incoming,
                    source,
                })
        });
        if let Err(error) = removed.await {
            tracing::warn!(container = id.short(), %error, "checkpoint files left behind");
        }
    }

    /// Leave nothing. Harmless when nothing is there.
    pub async fn discard(&self, id: &ContainerId) -> Result<()> {
        match self.state(id).await {
            Ok(running @ InstanceState::Running { .. }) => {
                // Never: a container that runs here is not removed by a late command.
                return Err(self.wrong_state(id, &running, "staged"));
            }
            Ok(InstanceState::Staged { .. } | InstanceState::Created) => {
                // An error: the shim ends, and what it held is killed below.
                drop(self.shim(id).ask(Request::Discard).await);
            }
            Err(RuntimeError::NotFound(_)) => return Ok(()),
            _ => {}
        }
        self.discard_volumes(id).await?;
        self.clear(id).await
    }
}

/// Moves a received file to its place, if it was sent.
fn take(from: &Path, to: &Path) -> Result<()> {
    if to.file_name().is_some_and(|name| name == crate::log::FILE) {
        // The armed shim has the log open: it appends to what arrives in front of it.
        return match fs::read(from) {
            Ok(bytes) => fs::write(to, bytes).map_err(|source| RuntimeError::Io {
                path: to.to_owned(),
                source,
            }),
            Err(_) => Ok(()),
        };
    }
    match fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(RuntimeError::Io {
            path: to.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}
