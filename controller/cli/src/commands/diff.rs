//! `godwit diff`.

use godwit_cli::observe;
use godwit_types::{Change, ChangeKind, Look};

use crate::{
    options::{Format, Global},
    output,
};

/// List what a container changed of its image's files: A added, C changed, D deleted
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let changes: Vec<Change> = observe::look(&mut cluster, &args.container, Look::Changes).await?;
    match global.format {
        Format::Json => output::json(&changes)?,
        Format::Table => {
            for change in &changes {
                let letter = match change.kind {
                    ChangeKind::Added => 'A',
                    ChangeKind::Changed => 'C',
                    ChangeKind::Deleted => 'D',
                };
                // A name may have anything in it, and this is a line of a terminal.
                let path: String = change
                    .path
                    .chars()
                    .map(|c| if c.is_control() { '?' } else { c })
                    .collect();
                output::line(format_args!("{letter} {path}"))?;
            }
        }
    }
    Ok(0)
}
