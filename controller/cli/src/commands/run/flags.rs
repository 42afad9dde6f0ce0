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

use crate::commands::watch::Watch;

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

    /// How it is in front of the user.
    pub fn watch(&self) -> Watch {
        Watch {
            removes: self.policy.rm,
            ..self.terminal.watch()
        }
    }

    /// Reads what they name on this machine, such as files. `detach`: this program will not see the
    /// container's end.
    pub fn options(self, detach: bool) -> anyhow::Result<(Options, Limits)> {
        let limits = self.limits.limits()?;
        let options = Options {
            process: self.process.options()?,
            policy: self.policy.options(!detach)?,
            terminal: self.terminal.options(detach)?,
            storage: self.storage.options()?,
            ports: self.ports.options()?,
        };
        Ok((options, limits))
    }
}
