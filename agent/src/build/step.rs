//! `RUN`: a container of this runtime's, above the layers so far. It belongs to the build alone.

use std::{sync::Arc, time::Duration};

use godwit_proto::control::log_chunk::Source;
use godwit_runtime::{
    RuntimeError,
    image::author::{Authored, Clamp},
};
use godwit_types::{
    BuildOutput, ContainerId, ContainerName, ContainerSpec, Digest, ImageName, InstanceState,
    Limits, NetworkAttachment, Options,
};
use tokio::{sync::Semaphore, time::sleep};

use super::{error::StepError, job::Cancel, leases::Workplace};
use crate::{
    host::Host,
    logs::{Reader, Wanted},
};

/// How often the output of a step is looked at.
const POLL: Duration = Duration::from_millis(30);
/// The exit codes of a command that does not exist, and of one that can't be executed.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What is run, and in what.
pub struct Running<'a> {
    pub host: &'a Arc<Host>,
    pub workplace: &'a Workplace,
    pub cancel: &'a Cancel,
    /// What may be said before somebody has read it: a step that says more waits.
    pub room: &'a Semaphore,
    /// An image with the layers so far, the environment, the user and the directory.
    pub image: Digest,
    pub layers: Vec<Digest>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub limits: Limits,
    pub network: bool,
    pub clamp: Clamp,
}

impl Running<'_> {
    /// Runs it to its end; `said` gets its output. Leaves nothing but the layer.
    pub async fn run(
        self,
        said: &mut (dyn FnMut(BuildOutput, String) + Send),
    ) -> Result<Authored, StepError> {
        let id = id();
        self.workplace
            .hold_container(&id)
            .map_err(|source| StepError::Io("a step's container".to_owned(), source))?;
        let attachment = match self.network {
            true => self.host.builds.attach(),
            false => None,
        };
        let made = self.run_attached(&id, attachment.clone(), said).await;
        let removed = self.host.runtime.remove(&id, true).await;
        if let Some(attachment) = &attachment {
            self.host.builds.detach(attachment);
        }
        let layer = made?;
        removed?;
        self.workplace.held_container(&id);
        Ok(layer)
    }

    async fn run_attached(
        &self,
        id: &ContainerId,
        network: Option<NetworkAttachment>,
        said: &mut (dyn FnMut(BuildOutput, String) + Send),
    ) -> Result<Authored, StepError> {
        let invalid = |error: godwit_types::IdError| {
            StepError::Io("a step's name".to_owned(), std::io::Error::other(error))
        };
        let spec = ContainerSpec {
            name: ContainerName::new(format!("build-{}", id.short())).map_err(invalid)?,
            image: "build".parse::<ImageName>().map_err(invalid)?,
            image_id: self.image.clone(),
            command: self.command.clone(),
            env: self.env.clone(),
            limits: self.limits.clone(),
            network,
            // The same in every build, for what a step writes down.
            hostname: "build".to_owned(),
            options: Options::default(),
        };
        match self.host.runtime.run(id, &spec).await {
            Ok(_) => {}
            Err(RuntimeError::CommandNotFound(_)) => {
                let text = format!("{}: not found\n", self.command[0]);
                said(BuildOutput::Stderr, text);
                return Err(StepError::Exit(NOT_FOUND));
            }
            Err(RuntimeError::CommandNotExecutable { reason, .. }) => {
                let text = format!("{}: {reason}\n", self.command[0]);
                said(BuildOutput::Stderr, text);
                return Err(StepError::Exit(NOT_EXECUTABLE));
            }
            Err(error) => return Err(error.into()),
        }
        let code = self.follow(id, said).await?;
        if code != 0 {
            return Err(StepError::Exit(code));
        }
        let interrupt = self.cancel.interrupt();
        Ok(self
            .host
            .runtime
            .author_ended(id, self.layers.clone(), self.clamp, interrupt)
            .await?)
    }

    /// Passes its output on until it has ended and all of that was read. Answers the exit code.
    async fn follow(
        &self,
        id: &ContainerId,
        said: &mut (dyn FnMut(BuildOutput, String) + Send),
    ) -> Result<i32, StepError> {
        let unreadable = |source| StepError::Io("a step's output".to_owned(), source);
        let path = self.host.runtime.log_path(id);
        let opened =
            tokio::task::spawn_blocking(move || Reader::open(&path, 0, Wanted::default())).await;
        let opened = opened.map_err(|error| unreadable(std::io::Error::other(error)))?;
        let mut reader = opened.map_err(unreadable)?;
        loop {
            // Asked before the read, so that what was written until the end is still read.
            let state = self.host.runtime.state(id).await?;
            loop {
                let read = tokio::task::spawn_blocking(move || {
                    let chunks = reader.read();
                    (reader, chunks)
                })
                .await;
                let (back, chunks) = read.map_err(|e| unreadable(std::io::Error::other(e)))?;
                reader = back;
                let chunks = chunks.map_err(unreadable)?;
                if chunks.is_empty() {
                    break;
                }
                for chunk in chunks {
                    tokio::select! {
                        () = self.cancel.cancelled() => return Err(StepError::Interrupted),
                        room = self.room.acquire() => {
                            if let Ok(room) = room {
                                room.forget();
                            }
                        }
                    }
                    let stream = match chunk.source() {
                        Source::Stdout => BuildOutput::Stdout,
                        Source::Stderr => BuildOutput::Stderr,
                    };
                    said(stream, String::from_utf8_lossy(&chunk.data).into_owned());
                }
            }
            match state {
                InstanceState::Exited { exit } => return Ok(exit.code),
                InstanceState::Running { .. } | InstanceState::Created => {}
                other => {
                    return Err(RuntimeError::WrongState {
                        container: id.short().to_owned(),
                        state: format!("{other:?}"),
                        wanted: "running",
                    }
                    .into());
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(StepError::Interrupted),
                () = sleep(POLL) => {}
            }
        }
    }
}

/// A container's id, of no cluster.
fn id() -> ContainerId {
    ContainerId::from_bytes(super::job::random())
}
