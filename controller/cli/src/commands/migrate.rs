//! `godwit migrate`.

use std::{cell::RefCell, fmt::Write};

use anyhow::anyhow;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use godwit_cli::{
    exit_code::INTERRUPTED,
    migration::{Order, begin, estimate, migrate},
};
use godwit_types::{
    ByteSize, CommandFailure, Compression, Estimate, MigrationMode, MigrationOptions,
    MigrationView, Millis, Phase, Priority,
};

use crate::{
    options::{Format, Global},
    output::{self, age::millis, progress::Watcher},
};

/// Move a running container to another host, with its memory and its connections
///
/// Ctrl-C ends the watching, not the migration.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
    /// The host to move it to
    #[arg(long, value_name = "HOST")]
    to: String,
    /// When its memory moves: `precopy` sends it while the container runs, `stop` in the freeze,
    /// `auto` chooses
    #[arg(long, value_parser = modes(), default_value_t = MigrationMode::Auto)]
    mode: MigrationMode,
    /// The longest freeze: when it would take longer, the container stays where it is
    #[arg(long, value_name = "TIME", default_value = "300ms")]
    max_downtime: Millis,
    /// Most bytes a second from host to host, as in 100M [default: no limit]
    #[arg(long, value_name = "SIZE")]
    max_bandwidth: Option<ByteSize>,
    /// Compress memory on its way: `auto` does when it arrives sooner so
    #[arg(long, value_parser = compressions(), default_value_t = Compression::Auto)]
    compress: Compression,
    /// Give up when the container is not ready for its freeze by then, as in 5m [default: no
    /// limit]
    #[arg(long, value_name = "TIME")]
    timeout: Option<Millis>,
    /// Which of those that wait starts first, when too many are under way
    #[arg(long, value_parser = priorities(), default_value_t = Priority::Normal)]
    priority: Priority,
    /// Print the migration's id and leave it to itself
    #[arg(short, long)]
    detach: bool,
    /// Move nothing; watch the container for a few seconds, and say what it would come to and
    /// every reason against it
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
}

fn modes() -> impl TypedValueParser<Value = MigrationMode> {
    PossibleValuesParser::new(MigrationMode::OFFERED.map(MigrationMode::as_str))
        .try_map(|name| name.parse::<MigrationMode>())
}

fn compressions() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(Compression::ALL.map(Compression::as_str))
        .try_map(|name| name.parse::<Compression>())
}

fn priorities() -> impl TypedValueParser<Value = Priority> {
    PossibleValuesParser::new(Priority::ALL.map(Priority::as_str))
        .try_map(|name| name.parse::<Priority>())
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let order = Order {
        options: MigrationOptions {
            mode: args.mode,
            max_downtime_ms: args.max_downtime.0,
            max_bandwidth: args.max_bandwidth.map(|bytes| bytes.0),
            timeout_ms: args.timeout.map(|timeout| timeout.0),
            compress: args.compress,
        },
        container: args.container,
        to: args.to,
        priority: args.priority,
    };
    order.options.check()?;
    if args.dry_run {
        return dry_run(global, &order).await;
    }
    if args.detach {
        let view = begin(&mut global.cluster()?, &order).await?;
        match global.format {
            Format::Json => output::json(&view)?,
            Format::Table => output::line(&view.id)?,
        }
        return Ok(0);
    }
    watch(global, &order).await
}

/// Exits with 1 when there is a reason against it.
async fn dry_run(global: &Global, order: &Order) -> anyhow::Result<u8> {
    let estimate = estimate(&mut global.cluster()?, order).await?;
    match global.format {
        Format::Json => output::json(&estimate)?,
        Format::Table => output::text(&page(&estimate))?,
    }
    Ok(u8::from(!estimate.against.is_empty()))
}

fn page(estimate: &Estimate) -> String {
    let freeze = match estimate.predicted_freeze_us {
        0 => "not known".to_owned(),
        micros => format!("about {}", millis(micros)),
    };
    let facts = [
        ("memory", ByteSize(estimate.resident_bytes).to_string()),
        ("written", format!("{} pages/s", estimate.dirty_pages_per_s)),
        ("rounds", estimate.rounds.to_string()),
        ("bytes", ByteSize(estimate.bytes).to_string()),
        ("freeze", freeze),
    ];
    let mut page = String::new();
    for (name, value) in facts {
        let _ = writeln!(page, "{:<11}{value}", format!("{name}:"));
    }
    if let Some(note) = &estimate.note {
        let _ = writeln!(page, "{:<11}{note}", "note:");
    }
    for reason in &estimate.against {
        let _ = writeln!(page, "{:<11}{}", "against:", output::failure::shown(reason));
    }
    page
}

async fn watch(global: &Global, order: &Order) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let watcher = Watcher::new();
    let last = RefCell::new(None);
    let outcome = {
        let seen = |view: &MigrationView| {
            watcher.see(view);
            *last.borrow_mut() = Some(view.clone());
        };
        let moving = migrate(&mut cluster, order, seen);
        tokio::select! {
            _ = tokio::signal::ctrl_c() => None,
            view = moving => Some(view),
        }
    };
    watcher.clear();
    let Some(outcome) = outcome else {
        output::note(interrupted(last.borrow().as_ref()));
        return Ok(INTERRUPTED);
    };
    let view = outcome.map_err(|error| left_behind(error.into(), last.borrow().as_ref()))?;
    if let Some(note) = view.note.as_ref().filter(|_| view.phase == Phase::Done) {
        output::note(format_args!("note: {note}"));
    }
    match global.format {
        Format::Json => output::json(&view)?,
        Format::Table if view.phase == Phase::Done => output::line(summary(&view))?,
        Format::Table => {}
    }
    if view.phase == Phase::Done {
        let Some(error) = &view.error else {
            return Ok(0);
        };
        output::failure::report(&anyhow!("{error}").context(format!("`{}` was lost", view.name)));
        output::note(format_args!(
            "hint: post-copy needs the source until the last byte has come; `--mode precopy` does not"
        ));
        return Ok(1);
    }
    output::failure::report(&cause(&view).context(format!("`{}` was not moved", view.name)));
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

/// With its kind, which may have a hint.
fn cause(view: &MigrationView) -> anyhow::Error {
    let reason = view
        .error
        .clone()
        .unwrap_or_else(|| "no reason was given".into());
    match view.failure {
        Some(kind) => CommandFailure::new(kind, reason).into(),
        None => anyhow!(reason),
    }
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
        Some(view) if view.phase.is_committed() => format!(
            "the migration goes on; `godwit migration inspect {}` shows how it stands",
            view.id
        ),
        Some(view) => format!(
            "the migration goes on; `godwit migration inspect {id}` shows how it stands, \
             `godwit migration cancel {id}` takes it back",
            id = view.id
        ),
        None => "if the migration has begun it goes on; `godwit migration ls` shows it, \
                 `godwit migration cancel` takes it back"
            .into(),
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

#[cfg(test)]
mod tests {
    use godwit_types::FailureKind;

    use super::*;
    use crate::commands::sample_view;

    #[test]
    fn the_summary_is_one_line() {
        assert_eq!(
            summary(&sample_view(Phase::Done)),
            "redis moved h1 → h2: freeze 123 ms, total 456 ms, 12.3 MiB"
        );
    }

    #[test]
    fn who_stops_watching_is_told_how_to_cancel_while_that_is_possible() {
        let said = |phase| interrupted(Some(&sample_view(phase)));
        assert!(said(Phase::Reserved).contains("`godwit migration cancel 0101010101010101`"));
        assert!(!said(Phase::Resumed).contains("cancel"));
    }

    #[test]
    fn a_failure_of_a_known_kind_has_a_hint() {
        let mut view = sample_view(Phase::Aborted);
        view.error = Some("too fast".into());
        assert_eq!(godwit_cli::hint::hint(cause(&view).as_ref()), None);
        view.failure = Some(FailureKind::NotConverging);
        let hint = godwit_cli::hint::hint(cause(&view).as_ref()).unwrap();
        assert!(hint.contains("`--max-downtime`"), "{hint}");
    }

    #[test]
    fn an_estimate_is_a_page() {
        let estimate = Estimate {
            rounds: 3,
            bytes: 3 << 20,
            predicted_freeze_us: 45_000,
            dirty_pages_per_s: 120,
            resident_bytes: 2 << 20,
            note: Some("slow".into()),
            against: vec!["host `h2` is down".into()],
        };
        assert_eq!(
            page(&estimate),
            "memory:    2.0 MiB\n\
             written:   120 pages/s\n\
             rounds:    3\n\
             bytes:     3.0 MiB\n\
             freeze:    about 45 ms\n\
             note:      slow\n\
             against:   host `h2` is down\n"
        );
    }
}
