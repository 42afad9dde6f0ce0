//! Terminal and standard input.

use godwit_types::TerminalOptions;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {}

impl Flags {
    pub fn options(self) -> anyhow::Result<TerminalOptions> {
        Ok(TerminalOptions {})
    }
}
