//! What a user can ask of a container beyond image, command and network, by area. All of it has a
//! default, which is Docker's; all of it holds on whatever host the container comes to.

mod policy;
mod ports;
mod process;
mod storage;
mod terminal;

pub use policy::PolicyOptions;
pub use ports::{ExtraHost, HOST_GATEWAY, NetworkMode, PortOptions, Protocol, Published};
pub use process::ProcessOptions;
pub use storage::{
    MAX_MOUNTS, Mount, MountSource, StorageOptions, VolumeMount, VolumesFrom, plain as plain_path,
};
pub use terminal::TerminalOptions;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    pub process: ProcessOptions,
    pub policy: PolicyOptions,
    pub terminal: TerminalOptions,
    pub storage: StorageOptions,
    pub ports: PortOptions,
}

impl Options {
    /// Nothing was asked for: such options are not written down.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
