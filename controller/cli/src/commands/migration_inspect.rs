//! `godwit migration inspect`.

use std::fmt::Write;

use godwit_cli::migration::inspect;
use godwit_types::{ByteSize, MigrationView};

use crate::{
    options::{Format, Global},
    output::{self, age, table::table},
};

/// Show a migration: how far it is, and where the time of its freeze went
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
        ("phase", view.phase.to_string()),
        ("started", age::moment(view.started_ms)),
    ];
    if let Some(error) = &view.error {
        facts.push(("error", output::failure::shown(error)));
    }
    if times.freeze_us > 0 {
        facts.push(("freeze", age::millis(times.freeze_us)));
    }
    if times.total_us > 0 {
        facts.push(("total", age::millis(times.total_us)));
    }
    if times.bytes > 0 {
        facts.push(("bytes", ByteSize(times.bytes).to_string()));
    }
    let mut page = String::new();
    for (name, value) in facts {
        let _ = writeln!(page, "{:<11}{value}", format!("{name}:"));
    }
    if !times.steps.is_empty() {
        let rows: Vec<_> = times
            .steps
            .iter()
            .map(|step| {
                [
                    step.name.clone(),
                    format!("{:.1}", step.micros as f64 / 1000.0),
                ]
            })
            .collect();
        page.push('\n');
        page.push_str(&table(["STEP OF THE FREEZE", "MS"], &rows));
    }
    page
}

#[cfg(test)]
mod tests {
    use godwit_types::{ContainerId, FreezeStep, MigrationId, MigrationTimes, Phase};

    use super::*;

    #[test]
    fn the_page_shows_the_freeze_step_by_step() {
        let view = MigrationView {
            id: MigrationId::from_bytes([1; 8]),
            container: ContainerId::from_bytes([2; 32]),
            name: "redis".parse().unwrap(),
            from: "h1".parse().unwrap(),
            to: "h2".parse().unwrap(),
            phase: Phase::Done,
            error: None,
            failure: None,
            options: Default::default(),
            rounds: Vec::new(),
            progress: None,
            started_ms: 1_700_000_000_000,
            times: MigrationTimes {
                freeze_us: 123_000,
                total_us: 0,
                predicted_freeze_us: 0,
                bytes: 2048,
                steps: vec![FreezeStep {
                    name: "dump".into(),
                    micros: 44_250,
                    running: false,
                }],
            },
        };
        assert_eq!(
            page(&view),
            "migration: 0101010101010101\n\
             container: redis (020202020202)\n\
             hosts:     h1 → h2\n\
             phase:     done\n\
             started:   2023-11-14T22:13:20Z\n\
             freeze:    123 ms\n\
             bytes:     2.0 KiB\n\
             \n\
             STEP OF THE FREEZE   MS\n\
             dump                 44.2\n"
        );
    }
}
