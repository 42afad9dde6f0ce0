//! What every member knows, and how it is written down.
//!
//! Stored as JSON, `{"version":1,"state":{…}}`. A change that an older reader could misread
//! raises [`FORMAT`] and brings an upgrade step in [`State::from_json`].
//!
//! | format | brought | upgrade |
//! |---|---|---|
//! | 1 | | |
//! | 2 | pre-copy: its phase, a migration's options and rounds | the defaults of the new fields |
//! | 3 | recovery: a migration's `recovered`; limits and a queue of migrations, drains of hosts | the defaults of the new fields |

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use godwit_types::{
    ContainerId, ContainerName, ContainerSpec, FailureKind, Generation, HostName, InstanceDetails,
    MigrationId, MigrationLimits, MigrationOptions, MigrationTimes, NetworkName, NetworkSpec,
    Phase, Priority, Round, Status, VolumeName,
};
use serde::{Deserialize, Serialize};

use crate::roster::Roster;
use crate::volume::Volume;

/// The version this build writes and the highest it reads.
pub const FORMAT: u32 = 3;
/// The network that a cluster is born with.
pub const DEFAULT_NETWORK: &str = "default";
const DEFAULT_SUBNET: &str = "10.88.0.0/16";
const DEFAULT_VNI: u32 = 1;

/// The whole replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Empty until the first leader's `Init`.
    pub cluster: String,
    pub hosts: BTreeMap<HostName, Host>,
    pub networks: BTreeMap<NetworkName, Network>,
    pub containers: BTreeMap<ContainerId, Container>,
    pub migrations: BTreeMap<MigrationId, Migration>,
    #[serde(default)]
    pub limits: MigrationLimits,
    #[serde(default, skip_serializing_if = "Roster::is_empty")]
    pub members: Roster,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, Volume>,
}

/// A machine with an agent, from the moment its agent was first heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `address:port` of its agent.
    pub address: String,
    /// Where VXLAN packets for it go.
    pub underlay: Ipv4Addr,
    /// It is to be left: it takes no containers, and those it has are moved away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// What containers can ask of their host.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What was asked for of a host that is to be left, and how far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// The hosts that may take its containers. Empty: any.
    pub to: BTreeSet<HostName>,
    /// Containers that left since it began.
    pub moved: u32,
    /// Containers that could not be moved and are still there.
    pub failed: BTreeMap<ContainerId, DrainFailure>,
}

/// Why a container could not be moved away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainFailure {
    /// How often it was tried.
    pub attempts: u32,
    /// Of the last time.
    pub reason: String,
    /// Where it was to go, the last time: another host is better.
    #[serde(default)]
    pub to: Option<HostName>,
}

/// A cluster network and who has which of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub spec: NetworkSpec,
    /// Grows whenever the table that agents must have changes.
    pub version: u64,
    pub addresses: BTreeMap<Ipv4Addr, ContainerId>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "desired", rename_all = "lowercase")]
pub enum Desired {
    Running,
    Paused,
    Stopped {
        grace_ms: u64,
    },
    /// Stopped, and then running.
    Restarted {
        grace_ms: u64,
    },
    Removed,
}

/// The logical thing a user asked for, and what its owner last said of its instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: ContainerId,
    pub spec: ContainerSpec,
    /// The owner.
    pub host: HostName,
    /// By what right it is the owner.
    pub generation: Generation,
    pub desired: Desired,
    pub status: Status,
    pub pid: Option<i32>,
    pub created_ms: u64,
    /// The one migration under way.
    pub migration: Option<MigrationId>,
    /// Its anonymous volumes go with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removes_volumes: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub details: InstanceDetails,
    /// How often somebody asked for its start.
    #[serde(default, skip_serializing_if = "is_default")]
    pub starts: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One move of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    pub id: MigrationId,
    pub container: ContainerId,
    /// Kept, since the container may be removed later.
    pub name: ContainerName,
    pub from: HostName,
    pub to: HostName,
    /// The source's: the destination's after the commit is the next one.
    pub generation: Generation,
    pub phase: Phase,
    pub error: Option<String>,
    #[serde(default)]
    pub failure: Option<FailureKind>,
    /// The container went back to the source after the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Recovered>,
    /// Before there were any, every migration stopped and copied.
    #[serde(default = "MigrationOptions::stop")]
    pub options: MigrationOptions,
    #[serde(default)]
    pub priority: Priority,
    /// It waits for its turn. Only ever while it is pending.
    #[serde(default)]
    pub queued: bool,
    /// A drain of the source wants it.
    #[serde(default)]
    pub drain: bool,
    /// When it was asked for.
    pub started_ms: u64,
    /// When the leader asked for the freeze, so that the next leader can tell how long it took.
    #[serde(default)]
    pub freeze_started_ms: Option<u64>,
    /// Of pre-copy.
    #[serde(default)]
    pub rounds: Vec<Round>,
    pub times: MigrationTimes,
}

/// A migration that went back after its commit: the source owns the container again by the
/// generation after the destination's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    pub by: RecoveredBy,
    /// The migration has ended, and its destination still has to be told to discard.
    pub uncleared: bool,
}

/// By whose word the destination does not run the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveredBy {
    /// Its own, which it has written down.
    Destination,
    /// An operator's.
    Operator,
}

impl Migration {
    /// By which generation who owns the container.
    pub fn owner(&self) -> (&HostName, Generation) {
        let after = self.generation.next();
        match (self.recovered, self.phase.is_committed()) {
            (Some(_), _) => (&self.from, after.next()),
            (None, true) => (&self.to, after),
            (None, false) => (&self.from, self.generation),
        }
    }
}

/// Why a stored state can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state format {0} is newer than {FORMAT}, the highest this program reads; upgrade it")]
    Version(u32),
    #[error("stored state is not valid")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    state: &'a State,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Read {
    state: State,
}

impl Default for State {
    fn default() -> Self {
        let name = NetworkName::new(DEFAULT_NETWORK).expect("a valid literal");
        let spec = NetworkSpec {
            name: name.clone(),
            vni: DEFAULT_VNI,
            subnet: DEFAULT_SUBNET.parse().expect("a valid literal"),
        };
        let network = Network {
            spec,
            version: 1,
            addresses: BTreeMap::new(),
        };
        Self {
            cluster: String::new(),
            hosts: BTreeMap::new(),
            networks: BTreeMap::from([(name, network)]),
            containers: BTreeMap::new(),
            migrations: BTreeMap::new(),
            limits: MigrationLimits::default(),
            members: Roster::default(),
            volumes: BTreeMap::new(),
        }
    }
}

impl State {
    /// Writes the state with its version.
    pub fn to_json(&self) -> Vec<u8> {
        let written = Written {
            version: FORMAT,
            state: self,
        };
        serde_json::to_vec(&written).expect("every key of the state is text")
    }

    /// Reads a state of this version or an older one.
    pub fn from_json(json: &[u8]) -> Result<Self, StateError> {
        // The version first: the rest of a newer one need not parse.
        let Version { version } = serde_json::from_slice(json)?;
        if version > FORMAT {
            return Err(StateError::Version(version));
        }
        Ok(serde_json::from_slice::<Read>(json)?.state)
    }

    /// Containers that this host owns.
    pub fn owned_by<'a>(&'a self, host: &'a HostName) -> impl Iterator<Item = &'a Container> {
        self.containers.values().filter(move |c| c.host == *host)
    }

    /// Whether this host is to be left.
    pub fn is_draining(&self, host: &HostName) -> bool {
        self.hosts
            .get(host)
            .is_some_and(|host| host.drain.is_some())
    }

    /// Migrations that some step follows.
    pub fn active_migrations(&self) -> impl Iterator<Item = &Migration> {
        self.migrations.values().filter(|m| !m.phase.is_final())
    }
}
