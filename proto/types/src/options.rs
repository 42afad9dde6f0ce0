//! What a user can ask of a container beyond image, command and network, by area. All of it has a
//! default, which is Docker's; all of it holds on whatever host the container comes to.

mod health;
mod policy;
mod ports;
mod problem;
mod process;
mod storage;
mod sysctl;
mod terminal;

pub use health::{Health, HealthCheck, HealthOptions, HealthStatus};
pub use policy::{AutoRemove, Constraint, PolicyOptions, RestartPolicy, parse_label};
pub use ports::PortOptions;
pub use problem::OptionProblem;
pub use process::{
    CAPABILITIES, Device, ProcessOptions, Seccomp, Tmpfs, ULIMITS, Ulimit, capability, parse_ulimit,
};
pub use storage::StorageOptions;
pub use sysctl::{is_net as is_net_sysctl, parse as parse_sysctl};
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
    /// Nothing was asked for: it is not written down, as before there were any.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
