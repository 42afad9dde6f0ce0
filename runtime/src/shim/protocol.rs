//! What agent and shim say to each other: one line of JSON each way, over a Unix socket that
//! only root reaches. Both are of the same release or the shim's is older (it outlives an
//! upgrade of the agent), so fields are only ever added, with defaults.

use std::path::{Path, PathBuf};

use godwit_types::{Exit, FreezeStep, Limits, MigrationId, TerminalOptions, TerminalSize};
use serde::{Deserialize, Serialize};

use crate::{
    container::binds,
    criu::{Bind, Program},
    memory::pager::IndexAt,
};

/// The longest line.
pub const LINE: usize = 1 << 20;

/// Where the pager of the shim that has this socket takes memory that comes late.
pub fn feed(socket: &Path) -> PathBuf {
    socket.with_extension("pages")
}

/// `shim.json`: what a shim is told at its start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub id: String,
    /// The instance's directory.
    pub dir: PathBuf,
    pub socket: PathBuf,
    /// The container's cgroup below the hierarchies' roots.
    pub cgroup: String,
    /// The mounted root.
    pub root: PathBuf,
    pub netns: PathBuf,
    /// The host's end of the container's link: down, the gate is shut. None: no link.
    pub gate: Option<String>,
    pub criu: Program,
    pub limits: Limits,
    /// Volumes and paths of this host that are mounted.
    #[serde(default)]
    pub mounts: Vec<Bind>,
    /// Which devices may be used, as the OCI specification writes it.
    #[serde(default = "none")]
    pub devices: serde_json::Value,
    /// Files of ours in the container, besides those of /etc.
    #[serde(default)]
    pub binds: Vec<Bind>,
    #[serde(default)]
    pub terminal: TerminalOptions,
}

fn none() -> serde_json::Value {
    serde_json::Value::Array(Vec::new())
}

impl Config {
    /// Files of ours that are mounted, but for those in whose place the user has something.
    pub fn own_mounts(&self) -> Vec<Bind> {
        let mut binds = binds(&self.dir.join("etc"));
        binds.extend(self.binds.iter().cloned());
        let taken = |own: &Bind| {
            let mut mounts = self.mounts.iter();
            mounts.any(|mount| mount.destination == own.destination)
        };
        binds.retain(|own| !taken(own));
        binds
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    State,
    /// Answers when the state is no longer this one.
    Watch {
        known: State,
    },
    /// Create the container from its bundle and start it.
    Create,
    Signal {
        signal: i32,
    },
    /// Dump and hold.
    Freeze {
        migration: MigrationId,
        /// Private memory is brought over by the caller: it is no part of the dump.
        #[serde(default)]
        carried: bool,
    },
    Thaw,
    /// Kill the held tasks and end.
    Release,
    /// Start CRIU now, so that it need not start inside the freeze.
    Arm {
        migration: MigrationId,
    },
    /// Restore and hold.
    Stage {
        /// Private memory that was brought over.
        #[serde(default)]
        memory: Option<IndexAt>,
    },
    Resume,
    /// Leave nothing and end.
    Discard,
    /// What follows on this connection is input for the container, in [`frames`](crate::frames).
    Attach,
    /// Of its terminal, if it has one.
    Resize {
        size: TerminalSize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    State { state: State },
    Done { steps: Vec<FreezeStep> },
    Failed { message: String },
}

/// What the shim's container is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Nothing was made yet.
    Ready,
    Running {
        pid: i32,
        /// Some of its memory is not in it yet: it can't be frozen.
        #[serde(default)]
        filling: bool,
    },
    Frozen {
        migration: MigrationId,
        pid: i32,
        /// Its private memory is not in the dump.
        #[serde(default)]
        carried: bool,
    },
    /// Armed or staged.
    Staged {
        migration: MigrationId,
    },
    Exited {
        exit: Exit,
    },
    /// Released or discarded: the shim is about to end.
    Gone,
}
