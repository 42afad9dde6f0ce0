//! What all tasks of this agent share.

use std::sync::{Arc, atomic::AtomicBool};

use godwit_proto::{
    failure::chain,
    tls::{Role, Target},
};
use godwit_runtime::Runtime;
use godwit_types::{AgentReport, HostFacts, HostName};
use rustls::ClientConfig;
use tracing::warn;

use crate::{
    board::Board,
    build::Builds,
    container::Containers,
    exclusive::Exclusive,
    images::Images,
    ledger::Ledger,
    live::LiveSettings,
    outbox::Outbox,
    postcopy::{Arrivals, Tails},
    precopy::{Flows, Throttled},
    progress::ProgressBoard,
    transfer::Doors,
};

/// This host.
pub struct Host {
    pub name: HostName,
    pub cluster: String,
    pub tls: Arc<ClientConfig>,
    /// As they were at the start.
    pub facts: HostFacts,
    pub runtime: Runtime,
    pub images: Images,
    pub ledger: Ledger,
    pub board: Board,
    pub outbox: Outbox,
    pub progress: ProgressBoard,
    pub flows: Flows,
    pub throttled: Throttled,
    pub arrivals: Arrivals,
    pub tails: Tails,
    pub containers: Containers,
    pub builds: Builds,
    pub exclusive: Exclusive,
    pub doors: Arc<Doors>,
    pub live: LiveSettings,
    /// There is a session with a leader.
    pub connected: AtomicBool,
    /// Tables of networks are applied one after the other.
    pub networks: tokio::sync::Mutex<()>,
}

impl Host {
    pub fn report(&self) -> AgentReport {
        AgentReport {
            facts: self.facts.clone(),
            disk_free: self.runtime.disk_free(),
            instances: self.board.instances(),
            images: self.board.images(),
        }
    }

    /// Reads the list of images, which every report then carries.
    pub async fn refresh_images(&self) {
        let runtime = self.runtime.clone();
        let listed = tokio::task::spawn_blocking(move || runtime.images().list()).await;
        match listed {
            Ok(Ok(images)) => self.board.set_images(images),
            Ok(Err(error)) => warn!(error = chain(&error), "images can't be listed"),
            Err(error) => warn!(%error, "images can't be listed"),
        }
    }

    /// A peer of this cluster; `name` None: any of this role.
    pub fn peer(&self, role: Role, name: Option<&str>, address: &str) -> Target {
        Target {
            address: address.to_owned(),
            cluster: self.cluster.clone(),
            role,
            name: name.map(str::to_owned),
        }
    }
}
