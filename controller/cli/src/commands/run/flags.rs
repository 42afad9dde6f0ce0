//! What `run` and `create` take beyond name, host, network and image, by area as in
//! [`godwit_types::Options`].

mod policy;
mod ports;
mod process;
mod storage;
mod terminal;

use godwit_types::Options;

#[derive(Debug, clap::Args)]
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
    /// Reads what they name on this machine, such as files.
    pub fn options(self) -> anyhow::Result<Options> {
        Ok(Options {
            process: self.process.options()?,
            policy: self.policy.options()?,
            terminal: self.terminal.options()?,
            storage: self.storage.options()?,
            ports: self.ports.options()?,
        })
    }
}
