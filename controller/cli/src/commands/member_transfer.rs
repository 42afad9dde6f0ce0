//! `godwit member transfer-leader`.

use godwit_cli::membership;

use crate::{
    options::{Format, Global},
    output,
};

/// Hand the lead to a member
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name
    member: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let now = membership::transfer(&mut global.cluster()?, &args.member).await?;
    match global.format {
        Format::Json => output::json(&now)?,
        Format::Table => output::line(format_args!("{} leads", args.member))?,
    }
    Ok(0)
}
