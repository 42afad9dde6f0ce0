//! Everything that can change the state. Stored in the Raft log as JSON: a field is added with a
//! default, never renamed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use godwit_types::{
    ContainerId, ContainerName, Digest, FailureKind, FreezeStep, Generation, HostName, ImageName,
    InstanceDetails, InstanceState, Limits, MigrationId, MigrationLimits, MigrationOptions,
    NetworkName, Options, Phase, Priority, RestartPolicy, Round, Subnet, VolumeId, VolumeName,
};
use serde::{Deserialize, Serialize};

use crate::{roster::MemberChange, state::RecoveredBy, volume::Volume};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
// Not `command`: a new container has a field of that name.
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Command {
    /// The first leader names the cluster.
    Init {
        cluster: String,
    },
    /// An agent said hello: it is new, or its address changed.
    HostSeen {
        name: HostName,
        address: String,
        underlay: Ipv4Addr,
    },
    /// No subnet: a free one is chosen.
    CreateNetwork {
        name: NetworkName,
        subnet: Option<Subnet>,
    },
    CreateContainer(Box<NewContainer>),
    /// What the agent of `host` says of an instance. No state: the instance is not there.
    ReportInstance {
        host: HostName,
        container: ContainerId,
        generation: Generation,
        state: Option<InstanceState>,
        /// None: they stand.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<InstanceDetails>,
    },
    BeginStop {
        container: ContainerId,
        grace_ms: u64,
    },
    /// The host could not stop, restart, pause or unpause it: it goes on as it is.
    CancelStop {
        container: ContainerId,
    },
    BeginRemove {
        container: ContainerId,
        force: bool,
        /// Its anonymous volumes, too.
        #[serde(default)]
        volumes: bool,
    },
    /// Nothing of it is left on its host.
    Removed {
        container: ContainerId,
    },
    MarkFailed {
        container: ContainerId,
        reason: String,
    },
    StartMigration {
        id: MigrationId,
        container: ContainerId,
        to: HostName,
        started_ms: u64,
        #[serde(default = "MigrationOptions::stop")]
        options: MigrationOptions,
        #[serde(default)]
        priority: Priority,
        /// A drain of the source wants it.
        #[serde(default)]
        drain: bool,
    },
    /// What leads to this phase has been done. `Committed` is the one commit point.
    Advance {
        migration: MigrationId,
        to: Phase,
        #[serde(default)]
        record: Record,
    },
    /// Before the commit only: both sides are to be undone.
    Abort {
        migration: MigrationId,
        error: String,
        /// When it was a host that failed.
        #[serde(default)]
        failure: Option<FailureKind>,
    },
    /// After the commit and before `Resumed` only: the container goes back to the source, by the
    /// next generation, since the destination said that it never resumed it or an operator
    /// answers for that.
    TakeBack {
        migration: MigrationId,
        by: RecoveredBy,
        error: String,
    },
    /// Nothing of a recovered migration is left at its destination.
    Cleared {
        migration: MigrationId,
    },
    /// How many migrations may be under way.
    SetLimits {
        limits: MigrationLimits,
    },
    /// The host is to be left. A repeat tries again what could not be moved.
    BeginDrain {
        host: HostName,
        /// Empty: any host; in a repeat, as before.
        to: BTreeSet<HostName>,
    },
    /// The host takes containers again.
    EndDrain {
        host: HostName,
    },
    /// A container could not be moved, and no migration says so.
    DrainFailed {
        host: HostName,
        container: ContainerId,
        reason: String,
        /// Not to be tried again.
        for_good: bool,
    },
    /// Who governs the cluster.
    Members {
        change: MemberChange,
    },
    RemoveNetwork {
        network: NetworkName,
    },
    /// A volume of this name is as good.
    CreateVolume(Box<Volume>),
    BeginRemoveVolume {
        volume: VolumeName,
    },
    /// Nothing of it is left on its host.
    VolumeRemoved {
        volume: VolumeName,
        id: VolumeId,
    },
    /// Start what was made or has ended.
    BeginStart {
        container: ContainerId,
    },
    /// The host could not start it.
    StartFailed {
        container: ContainerId,
        reason: String,
    },
    /// Stop, and start again; start, if it does not run.
    BeginRestart {
        container: ContainerId,
        grace_ms: u64,
    },
    /// `pause`: else unpause.
    BeginPause {
        container: ContainerId,
        pause: bool,
    },
    Rename {
        container: ContainerId,
        name: ContainerName,
    },
    /// Its host has applied them, if it runs there.
    Update {
        container: ContainerId,
        limits: Limits,
        restart: RestartPolicy,
    },
    /// All labels of a host.
    LabelHost {
        host: HostName,
        labels: BTreeMap<String, String>,
    },
}

/// A container as it is asked for; its address is allocated when the command is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewContainer {
    pub id: ContainerId,
    pub name: ContainerName,
    pub image: ImageName,
    pub image_id: Digest,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub limits: Limits,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub options: Options,
    /// None: only loopback.
    pub network: Option<NetworkName>,
    pub host: HostName,
    pub created_ms: u64,
    /// Only made: it is started when somebody asks for it.
    #[serde(default)]
    pub only_create: bool,
}

/// What a phase has to tell. Everything is optional; 0 and empty say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Appended to those of the phases before.
    pub steps: Vec<FreezeStep>,
    /// Added to those of the phases before.
    pub bytes: u64,
    pub rounds: Vec<Round>,
    pub predicted_freeze_us: u64,
    pub freeze_started_ms: Option<u64>,
    pub freeze_us: u64,
    pub total_us: u64,
    pub pid: Option<i32>,
    /// Of a recovered migration: its destination was not reached and may still hold something.
    pub uncleared: bool,
    /// What went wrong although it was committed.
    #[serde(default)]
    pub error: Option<String>,
}
