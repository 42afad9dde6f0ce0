//! Why the cluster says no. One variant per reason, with the object it is about.

use serde::{Deserialize, Serialize};

use crate::{
    ContainerName, Generation, HostName, MigrationId, NetworkName, Phase, Subnet, VolumeName,
};

/// A request that was understood and refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
pub enum Refusal {
    #[error("no container `{name}`")]
    UnknownContainer { name: String },
    #[error("container id prefix `{prefix}` fits more than one container")]
    AmbiguousContainer { prefix: String },
    #[error("no host `{host}`")]
    UnknownHost { host: String },
    #[error("no network `{network}`")]
    UnknownNetwork { network: String },
    #[error("no migration `{migration}`")]
    UnknownMigration { migration: String },
    #[error("container name `{name}` is in use")]
    NameInUse { name: ContainerName },
    #[error("network name `{network}` is in use")]
    NetworkInUse { network: NetworkName },
    #[error("subnet {subnet} overlaps network `{network}`")]
    SubnetOverlaps {
        subnet: Subnet,
        network: NetworkName,
    },
    #[error("network `{network}` has no free address")]
    NoFreeAddress { network: NetworkName },
    #[error("no host is up that has image `{image}`")]
    NoHostForImage { image: String },
    #[error("host `{host}` is being drained and takes no containers")]
    HostDraining { host: HostName },
    #[error("host `{host}` is down")]
    HostDown { host: HostName },
    #[error("host `{host}` does not have image `{image}`")]
    ImageMissing { host: HostName, image: String },
    #[error("host `{host}` has no room: {need} bytes needed, {free} free")]
    NoRoom {
        host: HostName,
        need: u64,
        free: u64,
    },
    #[error("host `{host}` can't checkpoint or restore: {problem}")]
    NoCriu { host: HostName, problem: String },
    #[error("container `{name}` is already on host `{host}`")]
    AlreadyThere { name: ContainerName, host: HostName },
    #[error("container `{name}` is not running ({status})")]
    NotRunning { name: ContainerName, status: String },
    #[error("container `{name}` is running; stop it first or use force")]
    StillRunning { name: ContainerName },
    #[error("container `{name}` is being moved by migration {migration} ({phase})")]
    Migrating {
        name: ContainerName,
        migration: MigrationId,
        phase: Phase,
    },
    #[error("migration {migration} is in phase {phase}, {wanted} does not follow")]
    WrongPhase {
        migration: MigrationId,
        phase: Phase,
        wanted: Phase,
    },
    #[error("migration {migration} is past its commit point and can only go forward")]
    PastCommit { migration: MigrationId },
    #[error(
        "migration {migration} is {phase}: only one that is committed and not resumed can be recovered"
    )]
    NotRecoverable {
        migration: MigrationId,
        phase: Phase,
    },
    #[error(
        "host `{host}` is up and says that the container runs there: migration {migration} goes on"
    )]
    RunsThere {
        migration: MigrationId,
        host: HostName,
    },
    #[error("generation {given} is behind {current}: the sender no longer owns the container")]
    StaleGeneration {
        given: Generation,
        current: Generation,
    },
    #[error("no volume `{volume}`")]
    UnknownVolume { volume: String },
    #[error("volume `{volume}` is used by container `{name}`")]
    VolumeInUse {
        volume: VolumeName,
        name: ContainerName,
    },
    #[error("volume `{volume}` is on host `{host}`, and the container is to be on `{wanted}`")]
    VolumeElsewhere {
        volume: VolumeName,
        host: HostName,
        wanted: HostName,
    },
    #[error("volume `{volume}` is being removed")]
    VolumeGoing { volume: VolumeName },
    #[error(
        "container `{name}` can't move: it shares volume `{volume}` with container `{other}`, and a volume is on one host"
    )]
    VolumeShared {
        name: ContainerName,
        volume: VolumeName,
        other: ContainerName,
    },
    #[error("port {port} of host `{host}` is in use by container `{name}`")]
    PortInUse {
        port: String,
        host: HostName,
        name: ContainerName,
    },
    #[error(
        "container `{name}` is on host `{host}`, and who shares its network can't be on `{wanted}`"
    )]
    NetworkElsewhere {
        name: ContainerName,
        host: HostName,
        wanted: HostName,
    },
    #[error("container `{name}` can't move: it shares its network with container `{other}`")]
    NetworkShared {
        name: ContainerName,
        other: ContainerName,
    },
    #[error(
        "container `{name}` can't move: it has the network of host `{host}`, whose addresses stay there"
    )]
    HostNetwork { name: ContainerName, host: HostName },
    #[error("network `{network}` is used by container `{name}`")]
    NetworkUsed {
        network: NetworkName,
        name: ContainerName,
    },
    #[error("`{what}` is not valid: {problem}")]
    Invalid { what: String, problem: String },
}

impl Refusal {
    /// Whether the object asked for does not exist, as against being in the wrong state.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::UnknownContainer { .. }
                | Self::UnknownHost { .. }
                | Self::UnknownNetwork { .. }
                | Self::UnknownMigration { .. }
                | Self::UnknownVolume { .. }
        )
    }
}
