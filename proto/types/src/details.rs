//! What is known of an instance besides its state.

use serde::{Deserialize, Serialize};

use crate::{Exit, Health};

/// See the module. It goes with the container when that is moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceDetails {
    /// How often its host started it again since somebody started it.
    pub restarts: u32,
    /// The kernel killed a process of it for want of memory since it was started.
    pub oom_killed: bool,
    /// Milliseconds since 1970; 0: it was never started, or by an older agent.
    pub started_ms: u64,
    /// Of the run before this one.
    pub last_exit: Option<Exit>,
    /// None: it has no check.
    pub health: Option<Health>,
    /// What was asked for and its host can't do, a line each.
    pub warnings: Vec<String>,
}
