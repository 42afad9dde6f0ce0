//! A container's way from one host to another, as it is stored and shown.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Where a migration is. Everything before `Committed` can be undone; nothing after it is.
///
/// ```text
/// Pending → Preflight → Reserved → PreCopy → Frozen → Transferred → Staged → COMMITTED
///      └──────── anything before COMMITTED: Aborting → Aborted     Done ← Resumed ←┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Accepted; nothing was asked of any host.
    Pending,
    /// Both hosts are asked whether it can work.
    Preflight,
    /// The destination holds room, address and a prepared instance.
    Reserved,
    /// The rounds of pre-copy are done, if there were any; the source still runs.
    PreCopy,
    /// The source's tasks are stopped and dumped; CRIU holds them.
    Frozen,
    /// Everything is on the destination, its hashes checked.
    Transferred,
    /// The destination's tasks are restored; CRIU holds them.
    Staged,
    /// The one commit point: the container belongs to the destination.
    Committed,
    /// The destination runs.
    Resumed,
    /// The source has let go.
    Done,
    /// Failed before the commit; both sides are being undone.
    Aborting,
    /// The source runs on as if nothing had been.
    Aborted,
}

impl Phase {
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Preflight,
        Self::Reserved,
        Self::PreCopy,
        Self::Frozen,
        Self::Transferred,
        Self::Staged,
        Self::Committed,
        Self::Resumed,
        Self::Done,
        Self::Aborting,
        Self::Aborted,
    ];

    /// No step follows.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Aborted)
    }

    /// The destination owns the container.
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed | Self::Resumed | Self::Done)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preflight => "preflight",
            Self::Reserved => "reserved",
            Self::PreCopy => "precopy",
            Self::Frozen => "frozen",
            Self::Transferred => "transferred",
            Self::Staged => "staged",
            Self::Committed => "committed",
            Self::Resumed => "resumed",
            Self::Done => "done",
            Self::Aborting => "aborting",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One step of the freeze on one host, so that the next millisecond to save is visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreezeStep {
    pub name: String,
    pub micros: u64,
    /// The container still ran: this belongs to the hand-over, but not to the freeze.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

impl FreezeStep {
    pub fn new(name: impl Into<String>, took: Duration) -> Self {
        Self {
            name: name.into(),
            micros: took.as_micros() as u64,
            running: false,
        }
    }

    /// The container still ran during this step.
    pub fn while_running(mut self) -> Self {
        self.running = true;
        self
    }
}

/// What a migration took. 0: not reached yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationTimes {
    /// From the source's last running moment to the destination's first, in microseconds, as
    /// the leader saw it: it includes the messages to and from both hosts.
    pub freeze_us: u64,
    /// From the request to the source's release, in microseconds.
    pub total_us: u64,
    /// What pre-copy expected of the freeze when its last round ended, in microseconds.
    pub predicted_freeze_us: u64,
    /// Bytes sent from agent to agent, before the freeze and in it.
    pub bytes: u64,
    /// The freeze, step by step, in order.
    pub steps: Vec<FreezeStep>,
}
