//! `godwit migration recover`.

use std::{
    io::{self, BufRead, IsTerminal},
    time::Duration,
};

use anyhow::bail;
use godwit_cli::migration::{inspect, recover};
use godwit_types::{MigrationView, Phase};

use crate::{
    options::{Format, Global},
    output,
};

/// How long it is watched: a source that is in contact needs far less.
const PATIENCE: Duration = Duration::from_secs(30);

/// Run a container again where it came from, when its new host is gone for good after the commit
///
/// Nothing else needs this: a host that comes back resumes the container, or says that it can't
/// and the container goes back by itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id, or the beginning of one
    #[arg(value_name = "ID")]
    migration: String,
    /// Use the source's frozen copy; what the container did on its new host is lost
    #[arg(long, required = true)]
    from_source: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let view = inspect(&mut cluster, &args.migration).await?;
    // Anything else is refused, or done already: nothing to be asked about.
    if view.phase == Phase::Committed && !args.yes {
        eprint!("{}", warning(&view));
        if !io::stdin().is_terminal() {
            bail!("not confirmed: `--yes` says that it is meant");
        }
        eprint!("Run {} on {} again? [y/N] ", view.name, view.from);
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was changed");
        }
    }
    let view = recover(&mut cluster, view.id.as_str(), PATIENCE).await?;
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table => output::line(sentence(&view))?,
    }
    Ok(0)
}

/// What it can cost.
fn warning(view: &MigrationView) -> String {
    let (name, from, to) = (&view.name, &view.from, &view.to);
    let mut text = format!("{name} belongs to {to}, which was not heard to have resumed it.\n");
    if let Some(awaits) = &view.awaits {
        text += &format!("The migration waits {awaits}\n");
    }
    text + &format!(
        "If {to} did resume it, whatever {name} has done there since its freeze is lost, also \
         what it has answered\nto clients, and while {to} is only out of contact it runs twice. \
         Go on only when {to} is gone for good\nor switched off. Should it come back, its copy \
         is ended.\n{name} would run on {from} as it was at its freeze.\n"
    )
}

fn sentence(view: &MigrationView) -> String {
    let (name, from, id) = (&view.name, &view.from, &view.id);
    match (view.phase, &view.awaits) {
        (Phase::Aborted, _) => format!("migration {id} was recovered; {name} runs on {from}"),
        (_, Some(awaits)) => format!("migration {id} is being recovered; it waits {awaits}"),
        (_, None) => format!("migration {id} is being recovered; {name} belongs to {from}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample_view;

    #[test]
    fn it_says_what_can_be_lost_and_where_the_container_runs() {
        let mut view = sample_view(Phase::Committed);
        view.awaits = Some("for host `h2` to resume: the host is down".into());
        let text = warning(&view);
        for words in [
            "redis belongs to h2, which was not heard to have resumed it",
            "waits for host `h2` to resume: the host is down",
            "has done there since its freeze is lost",
            "runs twice",
            "would run on h1",
        ] {
            assert!(text.contains(words), "no `{words}` in: {text}");
        }
        assert_eq!(
            sentence(&sample_view(Phase::Aborted)),
            "migration 0101010101010101 was recovered; redis runs on h1"
        );
        view.phase = Phase::Aborting;
        view.awaits = None;
        assert_eq!(
            sentence(&view),
            "migration 0101010101010101 is being recovered; redis belongs to h1"
        );
    }
}
