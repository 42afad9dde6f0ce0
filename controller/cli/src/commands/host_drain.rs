//! `godwit host drain`.

use anyhow::anyhow;
use godwit_cli::{
    drain::{begin, watch},
    exit_code::INTERRUPTED,
};
use godwit_types::DrainView;

use crate::{
    options::{Format, Global},
    output::{self, drain::Watcher, failure::shown},
};

/// Move every container away from a host, and let it take no new ones
///
/// At once only as many as the limits allow: see `godwit cluster set`. Ctrl-C ends the watching,
/// not the drain; the same command again goes on watching, and tries again what could not be
/// moved. Exits with 1 when containers are left.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name
    host: String,
    /// The only hosts that may take its containers, as in h2,h3 [default: every host]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    to: Vec<String>,
    /// Watch it to its end: what it does anyway
    #[arg(long)]
    wait: bool,
    /// Begin it and leave it to itself
    #[arg(short, long, conflicts_with = "wait")]
    detach: bool,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let view = begin(&mut cluster, &args.host, &args.to).await?;
    if args.detach {
        match global.format {
            Format::Json => output::json(&view)?,
            Format::Table => output::line(format_args!(
                "{} is being drained: {} to move",
                view.host,
                view.left.len()
            ))?,
        }
        return Ok(0);
    }
    let watcher = Watcher::new();
    let outcome = {
        let watching = watch(&mut cluster, &args.host, |view| watcher.see(view));
        tokio::select! {
            _ = tokio::signal::ctrl_c() => None,
            view = watching => Some(view),
        }
    };
    watcher.clear();
    let host = &args.host;
    let goes_on = format!(
        "the drain goes on; `godwit host drain {host}` watches it again, `godwit host activate \
         {host}` takes it back"
    );
    let Some(outcome) = outcome else {
        output::note(goes_on);
        return Ok(INTERRUPTED);
    };
    let view = outcome.map_err(|error| anyhow::Error::from(error).context(goes_on))?;
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table if view.is_drained() => output::line(summary(&view))?,
        Format::Table => {}
    }
    if view.is_drained() {
        return Ok(0);
    }
    output::failure::report(&problem(&view));
    for left in &view.left {
        let reason = left.reason.as_deref().unwrap_or("no reason was given");
        output::note(format_args!("{}: {}", left.name, shown(reason)));
    }
    if view.draining {
        output::note(format_args!(
            "hint: {} takes no containers until `godwit host activate {}`; `godwit host drain {}` \
             tries again",
            view.host, view.host, view.host
        ));
    }
    Ok(1)
}

fn summary(view: &DrainView) -> String {
    format!("{} is drained: {} moved", view.host, view.moved)
}

fn problem(view: &DrainView) -> anyhow::Error {
    let host = &view.host;
    if view.draining {
        let left = view.left.len();
        anyhow!("`{host}` is not empty: {} moved, {left} left", view.moved)
    } else {
        anyhow!("the drain of `{host}` was taken back")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::drain::sample;

    #[test]
    fn the_end_is_one_line() {
        let mut view = sample();
        assert_eq!(
            problem(&view).to_string(),
            "`h1` is not empty: 3 moved, 2 left"
        );
        view.left.clear();
        assert_eq!(summary(&view), "h1 is drained: 3 moved");
        view.draining = false;
        assert!(problem(&view).to_string().contains("taken back"));
    }
}
