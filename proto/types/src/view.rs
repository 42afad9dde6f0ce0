//! What people and programs read: `--format json` prints these as they are.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, ContainerId, ContainerName, ContainerSpec, Digest, Exit, FailureKind, Generation,
    HealthStatus, HostFacts, HostName, ImageName, InstanceDetails, MemberName, MemberRole,
    MigrationId, MigrationOptions, MigrationTimes, NetworkName, Phase, Priority, Progress, Round,
    Subnet,
};

/// A container's state in one word, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Status {
    /// Accepted, its host is making it.
    Creating,
    /// Made, and started when somebody asks for it.
    Created,
    /// Its host starts it.
    Starting {
        /// How the run before ended, if there was one and it is known.
        before: Option<Exit>,
        /// It has never been on its host.
        fresh: bool,
    },
    Running,
    Paused,
    /// It has ended by itself; its host will start it again in a moment.
    Restarting {
        exit: Exit,
    },
    Exited {
        exit: Exit,
    },
    /// It could not be started, or its instance is gone.
    Failed {
        reason: String,
    },
    Removing,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Creating => f.pad("creating"),
            Self::Created => f.pad("created"),
            Self::Starting { .. } => f.pad("starting"),
            Self::Running => f.pad("running"),
            Self::Paused => f.pad("paused"),
            Self::Restarting { exit } => f.pad(&format!("restarting ({})", exit.code)),
            Self::Exited { exit } => f.pad(&format!("exited ({})", exit.code)),
            Self::Failed { .. } => f.pad("failed"),
            Self::Removing => f.pad("removing"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    pub id: ContainerId,
    pub name: ContainerName,
    pub status: Status,
    /// The host that owns it.
    pub host: HostName,
    /// Whether that host's agent is in contact: when not, `status` is the last known.
    pub host_up: bool,
    pub generation: Generation,
    /// The host's pid of the first process, when known.
    pub pid: Option<i32>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// The migration under way.
    pub migration: Option<MigrationId>,
    pub spec: ContainerSpec,
    #[serde(default)]
    pub details: InstanceDetails,
}

impl ContainerView {
    /// The status, and how it does.
    pub fn status_text(&self) -> String {
        let mut text = self.status.to_string();
        if self.details.oom_killed && matches!(self.status, Status::Exited { .. }) {
            text.push_str(" (out of memory)");
        }
        if let (Status::Running, Some(health)) = (&self.status, &self.details.health) {
            text.push_str(match health.status {
                HealthStatus::Starting => " (health: starting)",
                HealthStatus::Healthy => " (healthy)",
                HealthStatus::Unhealthy => " (unhealthy)",
            });
        }
        text
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    pub name: HostName,
    /// In contact with the leader.
    pub up: bool,
    /// `address:port` of its agent.
    pub address: String,
    pub containers: u32,
    /// It is to be left, and takes no containers.
    #[serde(default)]
    pub draining: bool,
    /// None: it was never in contact with this leader.
    pub facts: Option<HostFacts>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    pub name: MemberName,
    pub address: String,
    pub leader: bool,
    /// Whether the leader hears from it.
    pub reachable: bool,
    /// Raft term and last applied index as this member's leader knows them.
    pub term: u64,
    pub applied: u64,
    /// Its Raft id, never that of another.
    #[serde(default)]
    pub id: u64,
    #[serde(default)]
    pub role: MemberRole,
    /// Log entries that the leader has and it is not known to have.
    #[serde(default)]
    pub behind: u64,
    /// What is being done with it, or what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    pub name: NetworkName,
    pub subnet: Subnet,
    pub gateway: Ipv4Addr,
    pub vni: u32,
    pub containers: u32,
    /// By name.
    #[serde(default)]
    pub endpoints: Vec<NetworkEndpoint>,
}

/// A container on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEndpoint {
    pub name: ContainerName,
    pub address: Ipv4Addr,
    pub host: HostName,
    /// What else it is called there.
    pub aliases: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    pub name: ImageName,
    pub id: Digest,
    pub size: ByteSize,
    /// Seconds since 1970; 0: not said.
    pub created: i64,
    /// The hosts that have it.
    pub hosts: Vec<HostName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationView {
    pub id: MigrationId,
    pub container: ContainerId,
    pub name: ContainerName,
    pub from: HostName,
    pub to: HostName,
    pub phase: Phase,
    /// Why it was aborted.
    pub error: Option<String>,
    /// What is other than one might expect of it, and is no failure.
    #[serde(default)]
    pub note: Option<String>,
    /// The kind of that failure, when a host failed.
    #[serde(default)]
    pub failure: Option<FailureKind>,
    /// After its commit the container went back to the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovered: bool,
    /// What it has been waiting for since a first attempt did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<String>,
    #[serde(default)]
    pub options: MigrationOptions,
    #[serde(default)]
    pub priority: Priority,
    /// Where it waits, from 1. None: it has started.
    #[serde(default)]
    pub place: Option<u32>,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// Of pre-copy, once they are done.
    #[serde(default)]
    pub rounds: Vec<Round>,
    /// Of pre-copy, while it is under way.
    #[serde(default)]
    pub progress: Option<Progress>,
    pub times: MigrationTimes,
}
