//! One container's writable layer and its volumes on their way, in rounds beside those of its memory.

use godwit_proto::failure::chain;
use godwit_runtime::Moving;
use godwit_types::{CommandFailure, HostName};
use tonic::transport::Channel;
use tracing::debug;

use crate::{
    failures,
    host::Host,
    transfer::{memory::Pace, protocol::Passage, source},
};

/// See the module.
pub struct Layer {
    passage: Passage,
    /// What the destination has of each. One that is not among them goes in the freeze, whole.
    moving: Vec<Moving>,
    bytes: u64,
}

impl Layer {
    pub fn new(host: &Host, passage: Passage) -> Self {
        let moving = host.runtime.moving(&passage.container);
        Self {
            passage,
            moving,
            bytes: 0,
        }
    }

    /// Sends what changed since the last round; over when the destination has applied it. Answers
    /// the bytes.
    pub async fn round(
        &mut self,
        host: &Host,
        to: &HostName,
        channel: Channel,
        max_bandwidth: Option<u64>,
    ) -> Result<u64, CommandFailure> {
        let container = &self.passage.container;
        let failed = |error| failures::of_runtime(&error);
        let mut sent = 0;
        // Taken while they are under way: after an error nobody knows what the destination has.
        for mut moving in std::mem::take(&mut self.moving) {
            moving = host.runtime.look(container, moving).await.map_err(failed)?;
            loop {
                let (next, part) = host
                    .runtime
                    .layer_part(container, moving)
                    .await
                    .map_err(failed)?;
                moving = next;
                let Some(part) = part else { break };
                let pace = Pace::new(max_bandwidth);
                let pushed =
                    source::push_layer(channel.clone(), &self.passage, part.file(), pace).await;
                sent += pushed.map_err(|error| {
                    let text = format!(
                        "{} can't be sent to host `{to}`: {}",
                        what(moving.name()),
                        chain(&error)
                    );
                    CommandFailure::new(error.kind(), text)
                })?;
            }
            self.moving.push(moving);
        }
        debug!(container = container.short(), bytes = sent, "layer round");
        self.bytes += sent;
        Ok(sent)
    }

    /// Sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn take(&mut self) -> Vec<Moving> {
        std::mem::take(&mut self.moving)
    }
}

fn what(name: &str) -> &str {
    match name {
        godwit_runtime::LAYER => "writable layer",
        volume => volume,
    }
}
