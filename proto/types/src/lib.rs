//! The words of Godwit as types: ids, generation, digest, units, the container specification,
//! what agents are asked and what they answer, and the views that people read.
//!
//! Everything here is plain data with checked constructors. It knows no runtime, no wire and no
//! Raft: `proto` carries these values as versioned documents, `controller/core` decides over
//! them, `runtime` acts on them.

mod build;
mod command;
mod cpu;
mod details;
mod digest;
mod exec;
mod generation;
mod host;
mod id;
mod ignore;
mod image;
mod image_reference;
mod image_work;
mod instance;
mod limits;
mod look;
mod member;
mod migration;
mod network;
mod options;
mod precopy;
mod queue;
mod refusal;
mod signal;
mod spec;
mod units;
mod view;
mod volume;

pub use build::{BuildEvent, BuildOutput, BuildRequest, CommitRequest, ImportRequest};
pub use command::{
    AgentCommand, AgentReport, CommandFailure, FailureKind, Need, Outcome, PostCopyTo, Verb,
};
pub use cpu::missing_cpu_flags;
pub use details::InstanceDetails;
pub use digest::{Digest, DigestError};
pub use exec::{ExecRequest, ExecRequestError};
pub use generation::Generation;
pub use host::{CgroupMode, HostFacts};
pub use id::{
    ContainerId, ContainerName, HostName, IdError, MemberName, MigrationId, NetworkName,
    OperationId, VolumeId, VolumeName,
};
pub use ignore::{IgnoreError, IgnoreRules};
pub use image::{ImageConfig, ImageName, ImageSummary};
pub use image_reference::ImageReference;
pub use image_work::{
    BlobPart, HostImageNews, ImageDetail, ImageNews, ImageOrder, ImageParts, ImagePeer,
    ImagePlatform, ImageUsage, LayerDetail, LayerStep, RegistryCredentials, StoreUsage,
};
pub use instance::{Exit, InstanceReport, InstanceState};
pub use limits::{DeviceRate, Limits, LimitsChange, cpuset, shares_to_weight};
pub use look::{Change, ChangeKind, Look, Process, Usage};
pub use member::{MemberRecord, MemberRole, Membership};
pub use migration::{FreezeStep, MigrationTimes, Phase};
pub use network::{Endpoint, MacAddr, NetworkAttachment, NetworkSpec, NetworkTable, Subnet};
pub use options::{
    AutoRemove, CAPABILITIES, Constraint, Device, ExtraHost, HOST_GATEWAY, Health, HealthCheck,
    HealthOptions, HealthStatus, LogOptions, MAX_MOUNTS, Mount, MountSource, NetworkMode,
    OptionProblem, Options, PolicyOptions, PortOptions, ProcessOptions, Protocol, Published,
    RestartPolicy, Seccomp, StorageOptions, TerminalOptions, TerminalSize, Tmpfs, ULIMITS, Ulimit,
    VolumeMount, VolumesFrom, capability, is_net_sysctl, parse_label, parse_sysctl, parse_ulimit,
    plain_path,
};
pub use precopy::{
    Compression, Estimate, MAX_DOWNTIME_MS, MAX_ROUNDS, MigrationMode, MigrationOptions,
    OptionError, Progress, ProgressReport, Round,
};
pub use queue::{DrainLeft, DrainView, MigrationLimits, Priority};
pub use refusal::Refusal;
pub use signal::{Signal, SignalError};
pub use spec::ContainerSpec;
pub use units::{ByteSize, Cpus, Millis, UnitError};
pub use view::{
    ContainerView, HostView, ImageView, MemberView, MigrationView, NetworkEndpoint, NetworkView,
    Status,
};
pub use volume::VolumeView;
