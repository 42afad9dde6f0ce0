//! Looking into a container that runs: its standard input, its terminal, signals.

use godwit_types::{ContainerId, TerminalSize};

use super::{Result, Runtime};
use crate::{exec::Talk, shim::protocol::Request};

impl Runtime {
    /// The container's standard input: what is sent is written to it, and acknowledged.
    pub async fn stdin(&self, id: &ContainerId) -> Result<Talk> {
        self.state(id).await?;
        Ok(self.shim(id).attach().await?)
    }

    /// Of its terminal, if it has one.
    pub async fn resize(&self, id: &ContainerId, size: TerminalSize) -> Result<()> {
        self.shim(id).ask(Request::Resize { size }).await?;
        Ok(())
    }

    /// Sends a signal to its first process.
    pub async fn send_signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.shim(id).ask(Request::Signal { signal }).await?;
        Ok(())
    }
}
