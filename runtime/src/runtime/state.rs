//! What an instance is doing: asked of its shim, or read from what the shim left. Whoever asks
//! finds a container that has lost its shim taken up by another one.

use std::{fs, io};

use godwit_types::{ContainerId, Exit, FreezeStep, InstanceState};

use super::{Result, Runtime, RuntimeError};
use crate::{
    cgroup,
    shim::{
        ShimError,
        protocol::{Request, State},
    },
};

impl Runtime {
    /// Every container that has an instance directory here, whatever its state.
    pub async fn instances(&self) -> Result<Vec<ContainerId>> {
        let dir = self.inner.config.data.join("containers");
        let failed = |source| RuntimeError::Io {
            path: dir.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Anything else is not ours to judge.
            if let Some(id) = name.to_str().and_then(|name| ContainerId::new(name).ok()) {
                found.push(id);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Takes up the network of an instance that outlived the agent before this one: its table is
    /// kept up to date from now on.
    pub async fn rejoin(&self, id: &ContainerId) -> Result<()> {
        let spec = self.spec(id)?;
        let Some(attachment) = &spec.network else {
            return Ok(());
        };
        self.networks().ensure(&attachment.network).await?;
        let resolvers = &spec.options.ports.dns;
        self.networks().give_resolvers(attachment, resolvers).await;
        if let Ok(InstanceState::Running { .. }) = self.state(id).await {
            self.reserve_ports(id, &spec).await?;
            self.publish(id, &spec).await?;
        }
        Ok(())
    }

    pub async fn state(&self, id: &ContainerId) -> Result<InstanceState> {
        let answered = self.shim(id).state().await;
        match answered {
            Err(ShimError::Gone { .. } | ShimError::BrokeOff(_)) => self.adopt(id).await,
            answered => self.known(id, answered),
        }
    }

    /// Asks a container's shim; the next one, if it has none any more.
    pub(super) async fn ask(&self, id: &ContainerId, request: Request) -> Result<Vec<FreezeStep>> {
        match self.shim(id).ask(request.clone()).await {
            // It was not heard.
            Err(ShimError::Gone { .. }) => {
                self.state(id).await?;
                Ok(self.shim(id).ask(request).await?)
            }
            answered => Ok(answered?),
        }
    }

    /// Answers when the instance's state is no longer `known`, with the new one. Cancel-safe.
    pub async fn changed(&self, id: &ContainerId, known: &InstanceState) -> Result<InstanceState> {
        loop {
            let shim = self.shim(id).state().await.ok();
            let now = match &shim {
                Some(state) => self.known(id, Ok(state.clone()))?,
                None => self.state(id).await?,
            };
            if now != *known {
                return Ok(now);
            }
            match shim {
                // An error: the shim has ended, and the next round finds out how.
                Some(state) => drop(self.shim(id).watch(state).await),
                // Nobody is there who could tell, or has been for this moment only.
                None => tokio::time::sleep(std::time::Duration::from_millis(500)).await,
            }
        }
    }

    pub(super) fn known(
        &self,
        id: &ContainerId,
        answered: std::result::Result<State, ShimError>,
    ) -> Result<InstanceState> {
        match answered {
            Ok(State::Ready) => Ok(InstanceState::Created),
            Ok(State::Running { pid, .. }) if cgroup::is_frozen(&self.cgroup(id)) => {
                Ok(InstanceState::Paused { pid })
            }
            Ok(State::Running { pid, .. }) => Ok(InstanceState::Running { pid }),
            Ok(State::Frozen { migration, .. }) => Ok(InstanceState::Frozen { migration }),
            Ok(State::Staged { migration }) => Ok(InstanceState::Staged { migration }),
            Ok(State::Exited { exit }) => Ok(InstanceState::Exited { exit }),
            Ok(State::Gone) | Err(ShimError::Gone { .. } | ShimError::BrokeOff(_)) => {
                self.left_behind(id)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The shim has ended, and nobody can take the container up.
    pub(super) fn left_behind(&self, id: &ContainerId) -> Result<InstanceState> {
        let paths = self.paths(id);
        if !paths.dir.exists() {
            return Err(RuntimeError::NotFound(id.short().to_owned()));
        }
        match fs::read(paths.exit()) {
            Ok(text) => {
                let exit: Exit =
                    serde_json::from_slice(&text).map_err(|source| RuntimeError::Stored {
                        path: paths.exit(),
                        source,
                    })?;
                Ok(InstanceState::Exited { exit })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(InstanceState::Lost {
                reason: "its shim ended without leaving an exit code".to_owned(),
            }),
            Err(source) => Err(RuntimeError::Io {
                path: paths.exit(),
                source,
            }),
        }
    }
}

/// One word, for errors.
pub(super) fn word(state: &InstanceState) -> String {
    match state {
        InstanceState::Created => "created".to_owned(),
        InstanceState::Running { .. } => "running".to_owned(),
        InstanceState::Paused { .. } => "paused".to_owned(),
        InstanceState::Restarting { exit } => format!("restarting ({})", exit.code),
        InstanceState::Frozen { migration } => format!("frozen by migration {migration}"),
        InstanceState::Staged { migration } => format!("staged by migration {migration}"),
        InstanceState::Exited { exit } => format!("exited ({})", exit.code),
        InstanceState::Lost { reason } => format!("lost: {reason}"),
    }
}
