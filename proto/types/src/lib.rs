//! The words of Godwit as types: ids, generation, digest, units, the container specification,
//! what agents are asked and what they answer, and the views that people read.
//!
//! Everything here is plain data with checked constructors. It knows no runtime, no wire and no
//! Raft: `proto` carries these values as versioned documents, `controller/core` decides over
//! them, `runtime` acts on them.

mod command;
mod cpu;
mod digest;
mod generation;
mod host;
mod id;
mod image;
mod instance;
mod migration;
mod network;
mod options;
mod precopy;
mod queue;
mod refusal;
mod spec;
mod units;
mod view;
mod volume;

pub use command::{
    AgentCommand, AgentReport, CommandFailure, FailureKind, Need, Outcome, PostCopyTo, Verb,
};
pub use cpu::missing_cpu_flags;
pub use digest::{Digest, DigestError};
pub use generation::Generation;
pub use host::{CgroupMode, HostFacts};
pub use id::{
    ContainerId, ContainerName, HostName, IdError, MemberName, MigrationId, NetworkName,
    OperationId, VolumeId, VolumeName,
};
pub use image::{ImageConfig, ImageName, ImageSummary};
pub use instance::{Exit, InstanceReport, InstanceState};
pub use migration::{FreezeStep, MigrationTimes, Phase};
pub use network::{Endpoint, MacAddr, NetworkAttachment, NetworkSpec, NetworkTable, Subnet};
pub use options::{
    ExtraHost, HOST_GATEWAY, MAX_MOUNTS, Mount, MountSource, NetworkMode, Options, PolicyOptions,
    PortOptions, ProcessOptions, Protocol, Published, StorageOptions, TerminalOptions, VolumeMount,
    VolumesFrom, plain_path,
};
pub use precopy::{
    Compression, Estimate, MAX_DOWNTIME_MS, MAX_ROUNDS, MigrationMode, MigrationOptions,
    OptionError, Progress, ProgressReport, Round,
};
pub use queue::{DrainLeft, DrainView, MigrationLimits, Priority};
pub use refusal::Refusal;
pub use spec::{ContainerSpec, Limits};
pub use units::{ByteSize, Cpus, Millis, UnitError};
pub use view::{
    ContainerView, HostView, ImageView, MemberView, MigrationView, NetworkEndpoint, NetworkView,
    Status,
};
pub use volume::VolumeView;
