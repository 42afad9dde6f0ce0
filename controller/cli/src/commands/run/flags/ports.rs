//! Published ports, and what resolves inside.

use godwit_types::PortOptions;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<PortOptions> {
        Ok(PortOptions {})
    }
}
