//! What a host says of itself.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// Which cgroup hierarchies the host has mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Controllers on v1, no v2 tree.
    V1,
    /// Controllers on v1, beside them a v2 tree without controllers.
    Hybrid,
    /// One v2 tree.
    V2,
}

/// Facts that preflight compares between two hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// As `uname -r` prints it.
    pub kernel: String,
    /// `4.2.1`; None: CRIU is missing or the kernel refuses it, see `criu_problem`.
    pub criu: Option<String>,
    /// Why this host can't checkpoint or restore, with the remedy. None: it can.
    pub criu_problem: Option<String>,
    pub cgroups: CgroupMode,
    pub cpus: u32,
    /// What its processors can do, as `/proc/cpuinfo` names it. Empty: not known.
    #[serde(default)]
    pub cpu_flags: BTreeSet<String>,
    pub memory: ByteSize,
    /// Free bytes under the data root when the session began.
    pub disk_free: ByteSize,
    /// The agent's version.
    pub version: String,
    /// Why memory of its containers can't be sent ahead of their freeze. None: it can.
    #[serde(default)]
    pub precopy_problem: Option<String>,
    /// What this host lacks, a line each, said and not fatal.
    pub warnings: Vec<String>,
}
