//! `godwit migrate`.

use std::{
    cell::RefCell,
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use godwit_cli::{exit_code::INTERRUPTED, migration::migrate};
use godwit_types::{ByteSize, MigrationView, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    options::{Format, Global},
    output::{self, age::millis},
};

/// Move a running container to another host, with its memory and its connections
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
    /// The host to move it to
    #[arg(long, value_name = "HOST")]
    to: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let progress = Progress::new();
    let last = RefCell::new(None);
    let outcome = {
        let seen = |view: &MigrationView| {
            progress.phase(view);
            *last.borrow_mut() = Some(view.clone());
        };
        let moving = migrate(&mut cluster, &args.container, &args.to, seen);
        tokio::select! {
            _ = tokio::signal::ctrl_c() => None,
            view = moving => Some(view),
        }
    };
    progress.clear();
    let Some(outcome) = outcome else {
        output::note(interrupted(last.borrow().as_ref()));
        return Ok(INTERRUPTED);
    };
    let view = outcome.map_err(|error| left_behind(error.into(), last.borrow().as_ref()))?;
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table if view.phase == Phase::Done => output::line(summary(&view))?,
        Format::Table => {}
    }
    if view.phase == Phase::Done {
        return Ok(0);
    }
    let reason = view
        .error
        .clone()
        .unwrap_or_else(|| "no reason was given".into());
    output::failure::report(&anyhow!(reason).context(format!("`{}` was not moved", view.name)));
    output::note(format_args!(
        "hint: `godwit host ls -v` shows what each host has room for and lacks, `godwit \
         migration inspect {}` how far it came",
        view.id
    ));
    output::note(format_args!(
        "`{}` runs on {} as before",
        view.name, view.from
    ));
    Ok(1)
}

fn summary(view: &MigrationView) -> String {
    format!(
        "{} moved {} → {}: freeze {}, total {}, {}",
        view.name,
        view.from,
        view.to,
        millis(view.times.freeze_us),
        millis(view.times.total_us),
        ByteSize(view.times.bytes),
    )
}

fn interrupted(last: Option<&MigrationView>) -> String {
    match last {
        Some(view) => format!(
            "the migration goes on; `godwit migration inspect {}` shows how it stands",
            view.id
        ),
        None => "if the migration has begun it goes on; `godwit migration ls` shows it".into(),
    }
}

/// An error while a migration was under way says nothing about how that ends.
fn left_behind(error: anyhow::Error, last: Option<&MigrationView>) -> anyhow::Error {
    match last {
        Some(view) => error.context(format!(
            "lost sight of migration {} in phase {}; it goes on without this program",
            view.id, view.phase
        )),
        None => error,
    }
}

/// What a person sees meanwhile, on standard error: on a terminal one line that lives, else a line
/// per phase.
struct Progress {
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            started: Instant::now(),
            bar,
        }
    }

    fn phase(&self, view: &MigrationView) {
        let line = progress_line(self.started.elapsed(), view);
        match &self.bar {
            Some(bar) if view.phase.is_final() => bar.println(line),
            Some(bar) => {
                bar.set_message(format!("{} {} → {}", view.name, view.from, view.to));
                bar.println(line);
            }
            None => output::note(line),
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn progress_line(elapsed: Duration, view: &MigrationView) -> String {
    format!(
        "{:>7.3} s  {:<11}  {}",
        elapsed.as_secs_f64(),
        view.phase,
        meaning(view)
    )
}

fn meaning(view: &MigrationView) -> String {
    let (name, from, to) = (&view.name, &view.from, &view.to);
    match view.phase {
        Phase::Pending => "accepted".into(),
        Phase::Preflight => format!("asking {from} and {to} whether it can work"),
        Phase::Reserved => format!("{to} is getting ready"),
        Phase::Frozen => format!("{name} is stopped on {from}"),
        Phase::Transferred => format!("{to} has everything"),
        Phase::Staged => format!("{name} is restored on {to}"),
        Phase::Committed => format!("{name} belongs to {to}"),
        Phase::Resumed => format!("{name} runs on {to}"),
        Phase::Done => format!("{from} has let go"),
        Phase::Aborting => format!("failed; {name} goes back to {from}"),
        Phase::Aborted => format!("{name} runs on {from} as before"),
    }
}

#[cfg(test)]
mod tests {
    use godwit_types::{ContainerId, MigrationId, MigrationTimes};

    use super::*;

    fn view(phase: Phase) -> MigrationView {
        MigrationView {
            id: MigrationId::from_bytes([1; 8]),
            container: ContainerId::from_bytes([2; 32]),
            name: "redis".parse().unwrap(),
            from: "h1".parse().unwrap(),
            to: "h2".parse().unwrap(),
            phase,
            error: None,
            started_ms: 0,
            times: MigrationTimes {
                freeze_us: 123_400,
                total_us: 456_000,
                bytes: 12_897_485,
                steps: Vec::new(),
            },
        }
    }

    #[test]
    fn the_summary_is_one_line() {
        assert_eq!(
            summary(&view(Phase::Done)),
            "redis moved h1 → h2: freeze 123 ms, total 456 ms, 12.3 MiB"
        );
    }

    #[test]
    fn a_phase_is_a_line_with_the_time_it_came_at() {
        assert_eq!(
            progress_line(Duration::from_millis(1234), &view(Phase::Frozen)),
            "  1.234 s  frozen       redis is stopped on h1"
        );
    }
}
