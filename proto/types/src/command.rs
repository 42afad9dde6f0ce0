//! What the leader asks of an agent, and what the agent answers.
//!
//! Every command can be repeated: it carries an operation id, and an agent that has done it
//! answers again what it answered before. Every command about a container carries a generation,
//! and one below the highest that the agent has seen for this container is refused.

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, ContainerId, ContainerSpec, Digest, Estimate, Exit, FreezeStep, Generation,
    HostFacts, HostName, ImageName, ImagePeer, ImageSummary, InstanceDetails, InstanceReport,
    MigrationId, MigrationOptions, NetworkSpec, NetworkTable, OperationId, Progress, Round, Signal,
    VolumeId,
};

/// Where memory goes that a post-copy left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostCopyTo {
    pub to: HostName,
    /// `address:port` of the destination's agent.
    pub address: String,
    /// Bytes a second at most, of what nobody waits for.
    pub max_bandwidth: Option<u64>,
}

/// One request to one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCommand {
    pub operation: OperationId,
    pub verb: Verb,
}

/// What to do. `container` and `generation` say with what, and by what right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Verb {
    /// Create and start. → `Running`
    Run {
        container: ContainerId,
        generation: Generation,
        spec: Box<ContainerSpec>,
    },
    /// The image's stop signal, after `grace_ms` SIGKILL; waits for the end. → `Stopped`
    Stop {
        container: ContainerId,
        generation: Generation,
        grace_ms: u64,
    },
    /// Remove an instance that has ended, with all it left; `force` kills it first. → `Done`
    Remove {
        container: ContainerId,
        generation: Generation,
        force: bool,
    },

    /// Source: could this instance be dumped? Changes nothing. → `Checked`
    CheckSource {
        container: ContainerId,
        generation: Generation,
        /// Whether memory comes before the freeze.
        #[serde(default)]
        options: MigrationOptions,
    },
    /// Destination: could this container be restored here? Changes nothing. → `Checked`
    CheckDestination {
        container: ContainerId,
        spec: Box<ContainerSpec>,
        /// What `CheckSource` answered.
        need: u64,
        /// What `CheckSource` answered.
        #[serde(default)]
        memory: u64,
    },
    /// Source: what would a migration come to? Watches for `millis` what is written; changes
    /// nothing. → `Sampled`
    Sample {
        container: ContainerId,
        generation: Generation,
        millis: u64,
        #[serde(default)]
        options: MigrationOptions,
    },
    /// Destination: image, overlay, network namespace with its port down, cgroup, shim and CRIU
    /// made ready for `generation`, which is the one *after* the commit. → `Done`
    Prepare {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
        spec: Box<ContainerSpec>,
        from: HostName,
        /// Whether memory comes before the freeze.
        #[serde(default)]
        options: MigrationOptions,
        /// What is known of the instance that comes.
        #[serde(default)]
        details: Box<InstanceDetails>,
    },
    /// Source: send memory in rounds while the container runs, until what is left fits in the
    /// freeze. Takes as long as it takes, and says meanwhile how it stands. → `PreCopied`
    PreCopy {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
        to: HostName,
        /// `address:port` of the destination's agent.
        address: String,
        #[serde(default)]
        options: MigrationOptions,
    },
    /// Source: shut the network gate, dump, hold. → `Frozen`
    Freeze {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
        /// Whether memory was sent before.
        #[serde(default)]
        options: MigrationOptions,
    },
    /// Source: send everything to the destination, which checks it. → `Transferred`
    Transfer {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
        to: HostName,
        /// `address:port` of the destination's agent.
        address: String,
    },
    /// Destination: restore, hold with the network gate shut. → `Staged`
    Stage {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
    },
    /// Destination, after the commit: let the tasks run, open the gate, announce. → `Resumed`
    Resume {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
    },
    /// Destination, before the commit or after a recovery: leave nothing. → `Done`
    Discard {
        migration: MigrationId,
        container: ContainerId,
        /// After a recovery, the generation by which the source owns the container again: what is
        /// older here is ended, even if it runs.
        #[serde(default)]
        generation: Option<Generation>,
    },
    /// Source, before the commit: let the tasks run again as if nothing had been. With a generation
    /// newer than the instance's, it is the owner again by that one: after a recovery. → `Done`
    Thaw {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
    },
    /// Source, after the destination resumed: kill the held tasks, leave nothing. → `Done`
    Release {
        migration: MigrationId,
        container: ContainerId,
        generation: Generation,
        /// Not before this host has all memory that a post-copy left behind.
        #[serde(default)]
        after: Option<PostCopyTo>,
    },

    /// Have exactly this table for this network. → `Done`
    SyncNetwork { table: NetworkTable },
    /// Have nothing of this network any more. → `Done`
    RemoveNetwork { network: NetworkSpec },
    /// Remove the data of a volume that no container uses any more. → `Done`
    RemoveVolume { volume: VolumeId },

    /// Start again what has ended here, with the same writable layer. → `Running`
    Start {
        container: ContainerId,
        generation: Generation,
        spec: Box<ContainerSpec>,
    },
    /// Stop every task by the cgroup. → `Done`
    Pause {
        container: ContainerId,
        generation: Generation,
    },
    /// → `Done`
    Unpause {
        container: ContainerId,
        generation: Generation,
    },
    /// To the first process. → `Done`
    Signal {
        container: ContainerId,
        generation: Generation,
        signal: Signal,
    },
    /// Other limits, or another restart policy, from now on. → `Done`
    Update {
        container: ContainerId,
        generation: Generation,
        spec: Box<ContainerSpec>,
    },
    /// Have this image: what is missing of it comes from these agents, by digest. → `Done`
    BringImage {
        image: Digest,
        names: Vec<ImageName>,
        peers: Vec<ImagePeer>,
    },
}

impl Verb {
    /// The container it is about, None for a network's.
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Run { container, .. }
            | Self::Stop { container, .. }
            | Self::Remove { container, .. }
            | Self::CheckSource { container, .. }
            | Self::CheckDestination { container, .. }
            | Self::Sample { container, .. }
            | Self::Prepare { container, .. }
            | Self::PreCopy { container, .. }
            | Self::Freeze { container, .. }
            | Self::Transfer { container, .. }
            | Self::Stage { container, .. }
            | Self::Resume { container, .. }
            | Self::Discard { container, .. }
            | Self::Thaw { container, .. }
            | Self::Release { container, .. }
            | Self::Start { container, .. }
            | Self::Pause { container, .. }
            | Self::Unpause { container, .. }
            | Self::Signal { container, .. }
            | Self::Update { container, .. } => Some(container),
            Self::SyncNetwork { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveVolume { .. }
            | Self::BringImage { .. } => None,
        }
    }

    /// The generation it claims, None where nothing is claimed.
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Run { generation, .. }
            | Self::Stop { generation, .. }
            | Self::Remove { generation, .. }
            | Self::CheckSource { generation, .. }
            | Self::Sample { generation, .. }
            | Self::Prepare { generation, .. }
            | Self::PreCopy { generation, .. }
            | Self::Freeze { generation, .. }
            | Self::Transfer { generation, .. }
            | Self::Stage { generation, .. }
            | Self::Resume { generation, .. }
            | Self::Thaw { generation, .. }
            | Self::Release { generation, .. }
            | Self::Start { generation, .. }
            | Self::Pause { generation, .. }
            | Self::Unpause { generation, .. }
            | Self::Signal { generation, .. }
            | Self::Update { generation, .. } => Some(*generation),
            Self::Discard { generation, .. } => *generation,
            Self::CheckDestination { .. }
            | Self::SyncNetwork { .. }
            | Self::RemoveNetwork { .. }
            | Self::RemoveVolume { .. }
            | Self::BringImage { .. } => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Stop { .. } => "stop",
            Self::Remove { .. } => "remove",
            Self::CheckSource { .. } => "check-source",
            Self::CheckDestination { .. } => "check-destination",
            Self::Sample { .. } => "sample",
            Self::Prepare { .. } => "prepare",
            Self::PreCopy { .. } => "pre-copy",
            Self::Freeze { .. } => "freeze",
            Self::Transfer { .. } => "transfer",
            Self::Stage { .. } => "stage",
            Self::Resume { .. } => "resume",
            Self::Discard { .. } => "discard",
            Self::Thaw { .. } => "thaw",
            Self::Release { .. } => "release",
            Self::SyncNetwork { .. } => "sync-network",
            Self::RemoveNetwork { .. } => "remove-network",
            Self::RemoveVolume { .. } => "remove-volume",
            Self::Start { .. } => "start",
            Self::Pause { .. } => "pause",
            Self::Unpause { .. } => "unpause",
            Self::Signal { .. } => "signal",
            Self::Update { .. } => "update",
            Self::BringImage { .. } => "bring-image",
        }
    }
}

/// What a command that succeeded found or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Running {
        pid: i32,
    },
    Stopped {
        exit: Exit,
    },
    /// `need`: bytes that the destination's disk must have room for; `memory`: bytes of memory.
    Checked {
        need: u64,
        #[serde(default)]
        memory: u64,
    },
    /// Every round, in order; none when memory is sent in the freeze.
    PreCopied {
        rounds: Vec<Round>,
        bytes: u64,
        predicted_freeze_us: u64,
    },
    Sampled {
        estimate: Estimate,
    },
    /// Steps of the freeze so far, in order.
    Frozen {
        steps: Vec<FreezeStep>,
    },
    Transferred {
        bytes: u64,
        steps: Vec<FreezeStep>,
    },
    Staged {
        steps: Vec<FreezeStep>,
    },
    Resumed {
        pid: i32,
        steps: Vec<FreezeStep>,
    },
    /// After a post-copy.
    Released {
        /// Of memory that was sent after the container ran.
        bytes: u64,
        /// Memory that could not be: the container was ended where it ran.
        #[serde(default)]
        lost: Option<String>,
    },
}

/// Bytes that a container needs where it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    pub disk: u64,
    pub memory: u64,
}

/// What went wrong, for whom, and whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command claims a generation that is behind.
    Stale,
    /// The instance, image or network is not here.
    NotFound,
    /// The instance is in a state in which this can't be done.
    WrongState,
    /// The container's command does not exist in its image (exit code 127).
    CommandNotFound,
    /// The container's command can't be executed (exit code 126).
    CommandNotExecutable,
    /// The host lacks something: room, CRIU, a kernel feature.
    Unfit,
    /// The container holds something that can't be moved, which the text names.
    Unmovable,
    /// A registry, or every host that was asked, did not give what was wanted; the text says which.
    Registry,
    /// The other host could not be reached or broke off.
    Peer,
    /// The container writes faster than its memory can be sent: the freeze would be too long.
    NotConverging,
    /// The instance that was to be resumed is lost, it never ran here, and no command of its
    /// generation will ever make it run: the host has written that down.
    NeverResumed,
    /// Anything else; the text says it.
    Internal,
}

/// A command that failed. What it had begun was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandFailure {
    pub kind: FailureKind,
    /// The whole chain of causes, the outermost first.
    pub message: String,
}

impl CommandFailure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Pre-copy that gave up.
    pub fn not_converging(at: &Progress, page_size: u64, options: &MigrationOptions) -> Self {
        let written = ByteSize(at.dirty_pages_per_s.saturating_mul(page_size));
        let sent = ByteSize(at.bytes_per_s);
        let text = format!(
            "after round {} the freeze would still take {} ms, more than the {} ms allowed: the \
             container writes {written}/s and {sent}/s are sent",
            at.round,
            at.predicted_freeze_us.div_ceil(1000),
            options.max_downtime_ms,
        );
        Self::new(FailureKind::NotConverging, text)
    }
}

/// What an agent says unasked: when its session begins, at every heartbeat, and at once when an
/// instance changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    pub facts: HostFacts,
    /// Free bytes under the data root now.
    pub disk_free: u64,
    /// Every instance on this host: one that is not listed is not there.
    pub instances: Vec<InstanceReport>,
    pub images: Vec<ImageSummary>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_copy_is_written_as_it_always_was() {
        let verb = Verb::PreCopy {
            migration: MigrationId::from_bytes([1; 8]),
            container: ContainerId::from_bytes([2; 32]),
            generation: Generation(3),
            to: HostName::new("h2").unwrap(),
            address: "10.0.0.2:7401".into(),
            options: MigrationOptions::default(),
        };
        let json = format!(
            r#"{{"verb":"pre_copy","migration":"{}","container":"{}","generation":3,"to":"h2","address":"10.0.0.2:7401","options":{{"mode":"auto","max_downtime_ms":300,"max_bandwidth":null,"timeout_ms":null}}}}"#,
            "01".repeat(8),
            "02".repeat(32)
        );
        assert_eq!(serde_json::to_string(&verb).unwrap(), json);
        assert_eq!(serde_json::from_str::<Verb>(&json).unwrap(), verb);
        // Kept in agents' ledgers.
        let outcome = Outcome::PreCopied {
            rounds: vec![Round::default()],
            bytes: 4,
            predicted_freeze_us: 5,
        };
        let json = r#"{"outcome":"pre_copied","rounds":[{"number":0,"sent_bytes":0,"sent_pages":0,"zero_pages":0,"dirty_pages":0,"micros":0}],"bytes":4,"predicted_freeze_us":5}"#;
        assert_eq!(serde_json::to_string(&outcome).unwrap(), json);
        assert_eq!(serde_json::from_str::<Outcome>(json).unwrap(), outcome);
    }

    #[test]
    fn who_gives_up_says_the_figures() {
        let at = Progress {
            round: 7,
            dirty_pages_per_s: 25600,
            bytes_per_s: 50 << 20,
            predicted_freeze_us: 1_200_400,
            ..Progress::default()
        };
        let failure = CommandFailure::not_converging(&at, 4096, &MigrationOptions::default());
        assert_eq!(failure.kind, FailureKind::NotConverging);
        assert_eq!(
            failure.message,
            "after round 7 the freeze would still take 1201 ms, more than the 300 ms allowed: the \
             container writes 100 MiB/s and 50.0 MiB/s are sent"
        );
    }
}
