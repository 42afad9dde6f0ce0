//! How the first process runs, and what it may.

use godwit_types::ProcessOptions;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<ProcessOptions> {
        Ok(ProcessOptions {})
    }
}
