//! `godwit migration inspect`.

use std::fmt::Write;

use godwit_cli::migration::inspect;
use godwit_types::{ByteSize, MigrationTimes, MigrationView, Phase, Round};

use crate::{
    options::{Format, Global},
    output::{self, age, progress::of_progress, table::table},
};

/// Show a migration: how far it is, its rounds, and where the time of its freeze went
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id, or the beginning of one
    #[arg(value_name = "ID")]
    migration: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let view = inspect(&mut cluster, &args.migration).await?;
    match global.format {
        Format::Json => output::pretty_json(&view)?,
        Format::Table => output::text(&page(&view))?,
    }
    Ok(0)
}

fn page(view: &MigrationView) -> String {
    let times = &view.times;
    let mut facts = vec![
        ("migration", view.id.to_string()),
        (
            "container",
            format!("{} ({})", view.name, view.container.short()),
        ),
        ("hosts", format!("{} → {}", view.from, view.to)),
        ("mode", view.options.mode.to_string()),
        ("priority", view.priority.to_string()),
        ("phase", output::phase(view)),
        ("started", age::moment(view.started_ms)),
    ];
    if let Some(error) = &view.error {
        facts.push(("error", output::failure::shown(error)));
    }
    if let Some(note) = &view.note {
        facts.push(("note", note.clone()));
    }
    if view.recovered {
        facts.push(("recovered", format!("to {}, after its commit", view.from)));
    }
    if let Some(awaits) = &view.awaits {
        facts.push(("waits", output::failure::shown(awaits)));
    }
    if view.phase == Phase::Committed && view.awaits.is_some() {
        facts.push(("can be done", can_be_done(view)));
    }
    if let Some(progress) = &view.progress {
        facts.push(("pre-copy", of_progress(progress)));
    }
    if times.freeze_us > 0 {
        facts.push(("freeze", age::millis(times.freeze_us)));
    }
    if times.predicted_freeze_us > 0 {
        facts.push(("predicted", age::millis(times.predicted_freeze_us)));
    }
    if times.total_us > 0 {
        facts.push(("total", age::millis(times.total_us)));
    }
    if times.bytes > 0 {
        facts.push(("bytes", ByteSize(times.bytes).to_string()));
    }
    let mut page = String::new();
    for (name, value) in facts {
        let _ = writeln!(page, "{:<11}{value}", format!("{name}: "));
    }
    if !view.rounds.is_empty() {
        let rows: Vec<_> = view.rounds.iter().map(round).collect();
        let header = ["ROUND", "PAGES", "ZERO", "SENT", "WRITTEN AGAIN", "MS"];
        page.push('\n');
        page.push_str(&table(header, &rows));
    }
    if !times.steps.is_empty() {
        page.push('\n');
        let header = ["STEP OF THE FREEZE", "MS", "SHARE"];
        page.push_str(&table(header, &timeline(times)));
    }
    page
}

/// About a commit that nobody has carried out yet.
fn can_be_done(view: &MigrationView) -> String {
    let (id, from, to) = (&view.id, &view.from, &view.to);
    format!(
        "bring {to} back: it resumes the container, or says that it can't and the container goes \
         back to {from}; only if {to} is gone for good: `godwit migration recover {id} \
         --from-source`"
    )
}

fn round(round: &Round) -> [String; 6] {
    [
        round.number.to_string(),
        round.sent_pages.to_string(),
        round.zero_pages.to_string(),
        ByteSize(round.sent_bytes).to_string(),
        round.dirty_pages.to_string(),
        millis(round.micros),
    ]
}

/// Each step with its share of the freeze, and what no step accounts for.
fn timeline(times: &MigrationTimes) -> Vec<[String; 3]> {
    let frozen = times.steps.iter().filter(|step| !step.running);
    let known: u64 = frozen.map(|step| step.micros).sum();
    let whole = times.freeze_us.max(known);
    let share = |micros: u64| format!("{:.0} %", 100.0 * micros as f64 / whole.max(1) as f64);
    let mut rows: Vec<_> = times
        .steps
        .iter()
        .map(|step| {
            let share = if step.running {
                "(runs)".to_owned()
            } else {
                share(step.micros)
            };
            [step.name.clone(), millis(step.micros), share]
        })
        .collect();
    if whole > known {
        let between = whole - known;
        rows.push(["between steps".into(), millis(between), share(between)]);
    }
    rows
}

fn millis(micros: u64) -> String {
    format!("{:.1}", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use godwit_types::{FreezeStep, Progress};

    use super::*;
    use crate::commands::sample_view;

    #[test]
    fn the_page_shows_the_rounds_and_the_freeze_step_by_step() {
        let mut view = sample_view(Phase::Done);
        view.rounds = vec![Round {
            number: 1,
            sent_bytes: 8192,
            sent_pages: 2,
            zero_pages: 3,
            dirty_pages: 1,
            micros: 1500,
        }];
        let step = |name: &str, millis| FreezeStep::new(name, Duration::from_millis(millis));
        view.times = MigrationTimes {
            freeze_us: 100_000,
            total_us: 0,
            predicted_freeze_us: 90_000,
            bytes: 2048,
            steps: vec![
                step("start criu", 20).while_running(),
                step("dump", 44),
                step("restore", 50),
            ],
        };
        assert_eq!(
            page(&view),
            "migration: 0101010101010101\n\
             container: redis (020202020202)\n\
             hosts:     h1 → h2\n\
             mode:      auto\n\
             priority:  normal\n\
             phase:     done\n\
             started:   2023-11-14T22:13:20Z\n\
             freeze:    100 ms\n\
             predicted: 90 ms\n\
             bytes:     2.0 KiB\n\
             \n\
             ROUND   PAGES   ZERO   SENT      WRITTEN AGAIN   MS\n\
             1       2       3      8.0 KiB   1               1.5\n\
             \n\
             STEP OF THE FREEZE   MS     SHARE\n\
             start criu           20.0   (runs)\n\
             dump                 44.0   44 %\n\
             restore              50.0   50 %\n\
             between steps        6.0    6 %\n"
        );
    }

    #[test]
    fn the_page_of_a_commit_that_waits_says_for_what_and_what_can_be_done() {
        let mut view = sample_view(Phase::Committed);
        assert!(!page(&view).contains("can be done"));
        view.awaits = Some("for host `h2` to resume: the host is down".into());
        let text = page(&view);
        for words in [
            "waits:     for host `h2` to resume: the host is down",
            "can be done: bring h2 back",
            "godwit migration recover 0101010101010101 --from-source",
        ] {
            assert!(text.contains(words), "no `{words}` in: {text}");
        }
        view.phase = Phase::Aborting;
        view.recovered = true;
        assert!(page(&view).contains("recovered: to h1, after its commit"));
    }

    #[test]
    fn the_page_shows_how_pre_copy_stands() {
        let mut view = sample_view(Phase::Reserved);
        view.progress = Some(Progress::default());
        assert!(page(&view).contains("pre-copy:  round 0: 0 of 0 pages left"));
    }
}
