//! One container's writable layer on its way, in rounds beside those of its memory.

use godwit_proto::failure::chain;
use godwit_runtime::rootfs::diff::Ahead;
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
    /// What the destination has of it. None: nothing that could be used, all goes in the freeze.
    ahead: Option<Ahead>,
    bytes: u64,
}

impl Layer {
    pub fn new(host: &Host, passage: Passage) -> Self {
        let ahead = host.runtime.layer(&passage.container);
        Self {
            passage,
            ahead,
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
        // Taken while it is under way: after an error nobody knows what the destination has.
        let Some(ahead) = self.ahead.take() else {
            return Ok(0);
        };
        let container = &self.passage.container;
        let failed = |error| failures::of_runtime(&error);
        let mut ahead = host.runtime.look(container, ahead).await.map_err(failed)?;
        let mut sent = 0;
        loop {
            let (next, part) = host
                .runtime
                .layer_part(container, ahead)
                .await
                .map_err(failed)?;
            ahead = next;
            let Some(part) = part else { break };
            let pace = Pace::new(max_bandwidth);
            let pushed =
                source::push_layer(channel.clone(), &self.passage, part.file(), pace).await;
            sent += pushed.map_err(|error| {
                let text = format!(
                    "writable layer can't be sent to host `{to}`: {}",
                    chain(&error)
                );
                CommandFailure::new(error.kind(), text)
            })?;
        }
        debug!(container = container.short(), bytes = sent, "layer round");
        self.ahead = Some(ahead);
        self.bytes += sent;
        Ok(sent)
    }

    /// Sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn take(&mut self) -> Option<Ahead> {
        self.ahead.take()
    }
}
