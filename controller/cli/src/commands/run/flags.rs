//! What `run` and `create` take beyond name, host, network and image, by area as in
//! [`godwit_types::Options`].

mod policy;
mod ports;
mod process;
mod storage;
mod terminal;

use godwit_types::Options;

use crate::commands::watch::Watch;

#[derive(Debug, clap::Args)]
// Its name is that of others, too.
#[group(skip)]
pub struct Flags {
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
    /// How it is in front of the user.
    pub fn watch(&self) -> Watch {
        self.terminal.watch()
    }

    /// Reads what they name on this machine, such as files.
    pub fn options(self, detach: bool) -> anyhow::Result<Options> {
        Ok(Options {
            process: self.process.options()?,
            policy: self.policy.options()?,
            terminal: self.terminal.options(detach)?,
            storage: self.storage.options()?,
            ports: self.ports.options()?,
        })
    }
}
