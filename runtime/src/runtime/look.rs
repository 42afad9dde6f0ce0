//! Looking into a container that runs: its standard input, its terminal, signals.

use godwit_types::{Change, ContainerId, InstanceState, Process, TerminalSize, Usage};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{cgroup::strangers, exec::Talk, observe, rootfs::Rootfs, shim::protocol::Request};

impl Runtime {
    /// The container's standard input: what is sent is written to it, and acknowledged.
    pub async fn stdin(&self, id: &ContainerId) -> Result<Talk> {
        self.state(id).await?;
        Ok(self.shim(id).attach().await?)
    }

    /// How many of its processes would end when it is frozen: those that `exec` started.
    pub async fn stay_behind(&self, id: &ContainerId) -> Result<usize> {
        let InstanceState::Running { pid } = self.state(id).await? else {
            return Ok(0);
        };
        let pids = self.processes(id).await?;
        blocking(move || Ok(strangers(&pids, pid).len())).await
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

/// What can be seen of it: see [`observe`](crate::observe).
impl Runtime {
    pub async fn list_processes(&self, id: &ContainerId) -> Result<Vec<Process>> {
        self.running(id).await?;
        let pids = self.processes(id).await?;
        blocking(move || Ok(observe::processes(&pids))).await
    }

    pub async fn usage(&self, id: &ContainerId) -> Result<Usage> {
        let pid = self.running(id).await?;
        let cgroup = self.cgroup(id);
        blocking(move || Ok(observe::usage(&cgroup, pid))).await
    }

    /// What it changed of its image, whether it runs or not.
    pub async fn changes(&self, id: &ContainerId) -> Result<Vec<Change>> {
        self.state(id).await?;
        let layers = self.image_of(&self.spec(id)?)?.layers;
        let upper = Rootfs::new(&self.paths(id).rootfs()).upper();
        blocking(move || {
            observe::changes(&upper, &layers).map_err(|source| RuntimeError::Io {
                path: upper,
                source,
            })
        })
        .await
    }

    async fn running(&self, id: &ContainerId) -> Result<i32> {
        match self.state(id).await? {
            InstanceState::Running { pid } => Ok(pid),
            other => Err(self.wrong_state(id, &other, "running")),
        }
    }
}
