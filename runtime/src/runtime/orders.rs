//! What is asked of an instance that is there: start it again, pause it, signal it, limit it
//! otherwise.

use std::fs;

use godwit_types::{ContainerId, ContainerSpec, Exit, InstanceState, Signal};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{
    cgroup::Group,
    container::{remove_images, remove_tree, write_atomic},
    shim::protocol::{Request, feed},
};

impl Runtime {
    /// Starts again what has ended, with the writable layer and the log that it left. After a
    /// failure it is as it was. Answers the pid; 0: it has ended again.
    pub async fn start(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<i32> {
        let last = match self.state(id).await {
            Ok(InstanceState::Running { pid } | InstanceState::Paused { pid }) => return Ok(pid),
            Ok(InstanceState::Exited { exit }) => Some(exit),
            Ok(InstanceState::Lost { .. }) => None,
            Ok(InstanceState::Created) => {
                // A start that did not get so far.
                drop(self.shim(id).ask(Request::Discard).await);
                None
            }
            Ok(other) => return Err(self.wrong_state(id, &other, "exited")),
            Err(error) => return Err(error),
        };
        self.tidy(id).await?;
        let made = self.make_and_start(id, spec).await;
        if made.is_err() {
            if let Err(error) = self.tidy(id).await {
                tracing::warn!(container = id.short(), %error, "failed start left something behind");
            }
            if let Some(exit) = last {
                let path = self.paths(id).exit();
                if let Err(error) = write_atomic(&path, &exit) {
                    tracing::warn!(container = id.short(), %error, "last exit code is lost");
                }
            }
        }
        made
    }

    /// Ends and removes what the run before has left, but for its files.
    async fn tidy(&self, id: &ContainerId) -> Result<()> {
        let paths = self.paths(id);
        drop(self.holds().remove(id));
        self.networks().detach(id).await?;
        let cgroup = self.cgroup(id);
        blocking(move || {
            Group::new(&cgroup).and_then(|group| {
                group.kill()?;
                group.remove()
            })?;
            let files = [
                feed(&paths.socket),
                paths.socket.clone(),
                paths.exit(),
                paths.held(),
            ];
            for path in files {
                match fs::remove_file(&path) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(RuntimeError::Io { path, source });
                    }
                    _ => {}
                }
            }
            for moving in [paths.checkpoint(), paths.incoming()] {
                remove_images(&moving.join("criu"))
                    .and_then(|()| remove_tree(&moving))
                    .map_err(|source| RuntimeError::Io {
                        path: moving,
                        source,
                    })?;
            }
            Ok(())
        })
        .await
    }

    /// Stops every task, or lets them go on.
    pub async fn pause(&self, id: &ContainerId, pause: bool) -> Result<()> {
        match self.state(id).await? {
            InstanceState::Running { .. } | InstanceState::Paused { .. } => {
                self.set_frozen(id, pause).await
            }
            other => Err(self.wrong_state(id, &other, "running")),
        }
    }

    pub(super) async fn set_frozen(&self, id: &ContainerId, frozen: bool) -> Result<()> {
        let cgroup = self.cgroup(id);
        blocking(move || {
            let group = Group::new(&cgroup)?;
            if frozen {
                group.freeze()?;
            } else {
                group.thaw()?;
            }
            Ok(())
        })
        .await
    }

    /// Sends a signal to the first process.
    pub async fn signal(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let running = self.state(id).await?;
        if !matches!(
            running,
            InstanceState::Running { .. } | InstanceState::Paused { .. }
        ) {
            return Err(self.wrong_state(id, &running, "running"));
        }
        let request = Request::Signal {
            signal: signal.number(),
        };
        self.ask(id, request).await?;
        // On a hybrid host frozen tasks die only after a thaw.
        if signal == Signal::KILL {
            self.set_frozen(id, false).await?;
        }
        Ok(())
    }

    /// The signal that asks it to end.
    pub fn stop_signal(&self, id: &ContainerId) -> Signal {
        let spec = self.spec(id);
        let own = spec
            .as_ref()
            .ok()
            .and_then(|spec| spec.options.process.stop_signal);
        own.or_else(|| {
            let image = self.image_of(spec.as_ref().ok()?).ok()?;
            image.config.stop_signal.parse().ok()
        })
        .unwrap_or(Signal::TERM)
    }

    /// Other limits, at once.
    pub async fn update(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<()> {
        let state = self.state(id).await?;
        let runs = matches!(
            state,
            InstanceState::Running { .. } | InstanceState::Paused { .. }
        );
        let old = self.spec(id)?;
        let (paths, cgroup, spec) = (self.paths(id), self.cgroup(id), spec.clone());
        blocking(move || {
            if runs {
                let group = Group::new(&cgroup)?;
                if let Err(error) = group.update(&spec.limits) {
                    // Half of it may have been taken.
                    let _ = group.update(&old.limits);
                    return Err(error.into());
                }
            }
            write_atomic(&paths.spec(), &spec).map_err(|source| RuntimeError::Io {
                path: paths.spec(),
                source,
            })
        })
        .await
    }

    /// Answers once it no longer runs, paused or not.
    pub(super) async fn ended(&self, id: &ContainerId) -> Result<InstanceState> {
        let mut known = self.state(id).await?;
        while matches!(
            known,
            InstanceState::Running { .. } | InstanceState::Paused { .. }
        ) {
            known = self.changed(id, &known).await?;
        }
        Ok(known)
    }

    /// What was asked for and this host can't do.
    pub fn warnings(&self, id: &ContainerId) -> Vec<String> {
        let text = fs::read_to_string(self.paths(id).warnings()).unwrap_or_default();
        text.lines().take(32).map(str::to_owned).collect()
    }

    /// Whether the kernel killed a process of its last run for want of memory.
    pub fn oom_killed(&self, id: &ContainerId) -> bool {
        #[derive(serde::Deserialize)]
        struct Left {
            #[serde(flatten)]
            _exit: Exit,
            #[serde(default)]
            oom_killed: bool,
        }
        let text = fs::read(self.paths(id).exit()).unwrap_or_default();
        serde_json::from_slice::<Left>(&text).is_ok_and(|left| left.oom_killed)
    }
}
