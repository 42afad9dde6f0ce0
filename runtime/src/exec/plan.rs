//! `exec.json`: what the keeper is told.

use std::path::PathBuf;

use godwit_types::TerminalSize;
use serde::{Deserialize, Serialize};

/// In a directory of its own, beside `config.json` and `process.json`, which are libcontainer's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The container's name in `state/`.
    pub name: String,
    /// Below the hierarchies' roots.
    pub cgroup: String,
    pub tty: bool,
    pub stdin: bool,
    pub detach: bool,
    pub size: Option<TerminalSize>,
    /// Where the shim notes what it ended: see [`ended`](super::ended).
    pub ended: PathBuf,
}

impl Plan {
    pub const FILE: &str = "exec.json";
    pub const PROCESS: &str = "process.json";
    pub const STATE: &str = "state";
}
