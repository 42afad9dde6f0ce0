//! One host's containers, by id: what the agent calls.
//!
//! The state of an instance is on disk and in its shim, never in this process alone, so a new
//! `Runtime` over the same directories finds everything again. Calls for one container are made
//! one at a time (the agent has one task per container); calls for different ones at will.

use std::{path::PathBuf, time::Duration};

use godwit_types::{ContainerId, ContainerSpec, Exit, FreezeStep, HostFacts, InstanceState, MigrationId};

use crate::{
    checkpoint::{CheckpointFile, Incoming},
    image, network,
};

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data root: images, layers, containers. Survives a reboot.
    pub data: PathBuf,
    /// Sockets and network namespaces. Gone after a reboot.
    pub run: PathBuf,
    /// The cgroup below which every container gets its own, such as `godwit`.
    pub cgroup: String,
    /// This host's address for VXLAN.
    pub underlay: std::net::Ipv4Addr,
    pub criu: PathBuf,
    /// The library preloaded into CRIU; None: none.
    pub interpose: Option<PathBuf>,
    /// The `godwit-shim` program.
    pub shim: PathBuf,
}

/// See the module.
#[derive(Clone)]
pub struct Runtime {}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("no instance of container {0} on this host")]
    NotFound(String),
    #[error("container {container} is {state}, not {wanted}")]
    WrongState { container: String, state: String, wanted: &'static str },
    #[error("image `{0}` is not on this host")]
    NoImage(String),
    #[error("command `{0}` not found in the container")]
    CommandNotFound(String),
    #[error("command `{0}` can't be executed in the container")]
    CommandNotExecutable(String),
    #[error("this host can't checkpoint or restore: {0}")]
    NoCriu(String),
    #[error("no room: {need} bytes needed, {free} free")]
    NoRoom { need: u64, free: u64 },
}

type Result<T, E = RuntimeError> = std::result::Result<T, E>;

impl Runtime {
    pub async fn open(_config: Config) -> Result<Self> {
        todo!()
    }
    pub fn images(&self) -> &image::Store {
        todo!()
    }
    pub fn networks(&self) -> &network::Networks {
        todo!()
    }
    /// Asked once at the start; a second call answers the same but for the free bytes.
    pub async fn facts(&self) -> HostFacts {
        todo!()
    }
    pub fn disk_free(&self) -> u64 {
        todo!()
    }
    /// Every container that has an instance directory here, whatever its state.
    pub async fn instances(&self) -> Result<Vec<ContainerId>> {
        todo!()
    }
    /// What the instance is doing, asked of its shim (or read from what the shim left).
    pub async fn state(&self, _id: &ContainerId) -> Result<InstanceState> {
        todo!()
    }
    /// Answers when the instance's state is no longer `known`, with the new one. Cancel-safe.
    pub async fn changed(&self, _id: &ContainerId, _known: &InstanceState) -> Result<InstanceState> {
        todo!()
    }
    /// Creates and starts. Leaves nothing when it fails. Answers the pid.
    pub async fn run(&self, _id: &ContainerId, _spec: &ContainerSpec) -> Result<i32> {
        todo!()
    }
    pub async fn stop(&self, _id: &ContainerId, _grace: Duration) -> Result<Exit> {
        todo!()
    }
    /// Idempotent: an instance that is not there is removed.
    pub async fn remove(&self, _id: &ContainerId, _force: bool) -> Result<()> {
        todo!()
    }
    pub fn log_path(&self, _id: &ContainerId) -> PathBuf {
        todo!()
    }

    /// Source: answers the bytes that a destination must have room for.
    pub async fn check_source(&self, _id: &ContainerId) -> Result<u64> {
        todo!()
    }
    /// Destination: image, CRIU, room, no instance of it here.
    pub async fn check_destination(&self, _id: &ContainerId, _spec: &ContainerSpec, _need: u64) -> Result<()> {
        todo!()
    }
    /// Source: gate shut, everything dumped and held. After a failure the container runs on.
    pub async fn freeze(&self, _id: &ContainerId, _migration: &MigrationId) -> Result<Vec<FreezeStep>> {
        todo!()
    }
    /// Source, while frozen: what to send, in order.
    pub async fn outgoing(&self, _id: &ContainerId) -> Result<Vec<CheckpointFile>> {
        todo!()
    }
    /// Source: run on, gate open. Idempotent: harmless when it runs.
    pub async fn thaw(&self, _id: &ContainerId) -> Result<()> {
        todo!()
    }
    /// Source: kill the held tasks and leave nothing of the instance. Idempotent.
    pub async fn release(&self, _id: &ContainerId) -> Result<()> {
        todo!()
    }
    /// Destination: everything that can be made before the freeze.
    pub async fn prepare(&self, _id: &ContainerId, _spec: &ContainerSpec, _migration: &MigrationId) -> Result<()> {
        todo!()
    }
    /// Destination, prepared: where received files go.
    pub fn incoming(&self, _id: &ContainerId) -> Result<Incoming> {
        todo!()
    }
    /// Destination: restore and hold, gate shut.
    pub async fn stage(&self, _id: &ContainerId) -> Result<Vec<FreezeStep>> {
        todo!()
    }
    /// Destination: run, gate open, announce. Idempotent. Answers the pid.
    pub async fn resume(&self, _id: &ContainerId) -> Result<(i32, Vec<FreezeStep>)> {
        todo!()
    }
    /// Destination: leave nothing. Idempotent.
    pub async fn discard(&self, _id: &ContainerId) -> Result<()> {
        todo!()
    }
}
