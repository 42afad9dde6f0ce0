//! `godwit member rm`.

use godwit_cli::membership;

use crate::{
    options::{Format, Global},
    output,
};

/// Take members out of the group
///
/// A leader hands the lead over first. What would leave too few members up is refused. The
/// program of a member that was taken out ends; its data directory can be deleted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Their names
    #[arg(required = true)]
    members: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let now = membership::remove(&mut global.cluster()?, &args.members).await?;
    global.refresh(&now.members);
    match global.format {
        Format::Json => output::json(&now)?,
        Format::Table => {
            for name in &args.members {
                output::line(name)?;
            }
        }
    }
    for note in &now.notes {
        output::note(format_args!("note: {note}"));
    }
    Ok(0)
}
