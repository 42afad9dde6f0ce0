//! `godwit host activate`.

use godwit_cli::drain::activate;

use crate::{
    options::{Format, Global},
    output,
};

/// Let a host take containers again, and take back what its drain queued
///
/// Migrations that are under way go on to their end; nothing that was moved comes back.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name
    host: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let view = activate(&mut global.cluster()?, &args.host).await?;
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table => output::line(format_args!("{} takes containers again", view.host))?,
    }
    Ok(0)
}
