//! What is mounted.

use godwit_types::StorageOptions;

#[derive(Debug, clap::Args)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<StorageOptions> {
        Ok(StorageOptions {})
    }
}
