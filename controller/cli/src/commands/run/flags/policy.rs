//! What happens when it ends.

use godwit_types::PolicyOptions;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<PolicyOptions> {
        Ok(PolicyOptions {})
    }
}
