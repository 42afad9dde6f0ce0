//! What is mounted.

use godwit_types::StorageOptions;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<StorageOptions> {
        Ok(StorageOptions {})
    }
}
