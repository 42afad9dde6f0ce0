//! What can be asked of a container where it is, and what is answered.

use serde::{Deserialize, Serialize};

/// A question about one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// → [`Process`] each
    Processes,
    /// → [`Usage`]
    Usage,
    /// → [`Change`] each
    Changes,
}

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub uid: u32,
    /// As the container numbers it: the same on every host.
    pub pid: i32,
    pub parent: i32,
    /// Processor time so far.
    pub cpu_ms: u64,
    /// For so long it has run.
    pub age_ms: u64,
    /// Such as `pts/0`. Empty: none.
    pub terminal: String,
    pub command: String,
}

/// What a container uses, as counters since it came to its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub cpu_ns: u64,
    /// Processors of its host.
    pub cpus: u32,
    /// Bytes, without what the kernel only caches for it.
    pub memory: u64,
    /// Its limit, or its host's memory.
    pub memory_limit: u64,
    pub received: u64,
    pub sent: u64,
    pub read: u64,
    pub written: u64,
    pub pids: u64,
}

/// A path that is other than in the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}
