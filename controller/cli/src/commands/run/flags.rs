//! What `run` and `create` take beyond name, host, network and image, by area as in
//! [`godwit_types::Options`].

mod limits;
mod policy;
mod ports;
mod process;
mod storage;
mod terminal;

pub use limits::memory_swap;

use godwit_types::{Limits, Options};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    #[command(flatten)]
    limits: limits::Flags,
    #[command(flatten)]
    process: process::Flags,
    #[command(flatten)]
    policy: policy::Flags,
    #[command(flatten)]
    terminal: terminal::Flags,
    #[command(flatten)]
    storage: storage::Flags,
    #[command(flatten)]
    ports: ports::Flags,
}

impl Flags {
    /// What files of this machine say of the environment.
    pub fn env(&self) -> anyhow::Result<Vec<String>> {
        self.process.env()
    }

    /// Whether it is removed once it has ended.
    pub fn removes(&self) -> bool {
        self.policy.rm
    }

    /// Reads what they name on this machine, such as files. `followed`: this program will see the
    /// container's end.
    pub fn options(self, followed: bool) -> anyhow::Result<(Options, Limits)> {
        let limits = self.limits.limits()?;
        let options = Options {
            process: self.process.options()?,
            policy: self.policy.options(followed)?,
            terminal: self.terminal.options()?,
            storage: self.storage.options()?,
            ports: self.ports.options()?,
        };
        Ok((options, limits))
    }
}
