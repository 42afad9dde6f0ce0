//! `godwit migration cancel`.

use godwit_cli::migration::cancel;
use godwit_types::{MigrationView, Phase};

use crate::{
    options::{Format, Global},
    output,
};

/// Take a migration back before its commit: the container runs on where it is
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id, or the beginning of one
    #[arg(value_name = "ID")]
    migration: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let view = cancel(&mut global.cluster()?, &args.migration).await?;
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table => output::line(sentence(&view))?,
    }
    Ok(0)
}

fn sentence(view: &MigrationView) -> String {
    let (name, from, id) = (&view.name, &view.from, &view.id);
    let how = if view.phase == Phase::Aborted {
        "was taken back"
    } else {
        "is being taken back"
    };
    format!("migration {id} {how}; {name} still runs on {from}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample_view;

    #[test]
    fn it_says_where_the_container_runs() {
        assert_eq!(
            sentence(&sample_view(Phase::Aborting)),
            "migration 0101010101010101 is being taken back; redis still runs on h1"
        );
    }
}
