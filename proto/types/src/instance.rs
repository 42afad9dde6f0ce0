//! One incarnation of a container on one host.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, Generation, InstanceDetails, MigrationId};

/// How a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell reports it: the exit code, or 128 and the signal's number. 255 as well where it
    /// ended while nobody was there who could have learned it.
    pub code: i32,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// What an instance is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum InstanceState {
    /// Made, not started.
    Created,
    Running {
        pid: i32,
    },
    /// Every task stopped by its cgroup, as somebody asked.
    Paused {
        pid: i32,
    },
    /// Every task stopped and dumped, held on the source until the leader's answer.
    Frozen {
        migration: MigrationId,
    },
    /// Prepared or restored on the destination, held until the leader's answer.
    Staged {
        migration: MigrationId,
    },
    Exited {
        exit: Exit,
    },
    /// It has ended by itself, and its host will start it again in a moment.
    Restarting {
        exit: Exit,
    },
    /// The shim is gone and left no exit code.
    Lost {
        reason: String,
    },
}

/// An instance as its agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReport {
    pub container: ContainerId,
    pub generation: Generation,
    pub state: InstanceState,
    #[serde(default)]
    pub details: InstanceDetails,
}
