//! Measures migrations: each scenario on a cluster of test hosts, beside it Podman with runc, and
//! a bare TLS stream as the limit. `godwit-testbed bench migrate`, started by `cargo xtask bench`.
//!
//! `scenario` says what is measured; `run` has containers with memory, `redis` has a Redis, and
//! `moves` moves and measures them; `observe` reads what the client saw, `peak` what memory it took,
//! `shape` makes links slower; `podman` and `stream` are what to compare with; `report` and `plot`
//! show it.

mod moves;
mod observe;
mod peak;
mod plot;
mod podman;
mod redis;
mod report;
mod run;
mod scenario;
mod shape;
pub mod stream;
mod sys;

use std::{fs, time::Instant};

use anyhow::{Result, bail};
use report::{Report, Row};

use crate::{
    programs::workspace,
    testbed::{Cluster, Options as Hosts},
};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Up to 1 GiB and two moves each: for a look, not for figures
    #[arg(long)]
    quick: bool,
    /// Moves of each scenario [default: 6, with --quick 2]
    #[arg(long)]
    moves: Option<usize>,
    /// Only scenarios whose name contains this
    #[arg(long)]
    only: Option<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let chosen = self.only.as_ref().is_none_or(|part| name.contains(part));
        chosen && !sys::interrupted()
    }
}

fn say(text: &str) {
    println!("bench: {text}");
}

/// Runs everything; writes `migrate.json` and `freeze.svg` into `target/bench`.
pub fn migrate(options: &Options) -> Result<()> {
    let began = Instant::now();
    sys::catch_interrupts()?;
    let moves = options.moves.unwrap_or(if options.quick { 2 } else { 6 });
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    on_a_cluster(options, moves, &mut rows, &mut failed)?;
    // The cluster is gone: Podman has the machine to itself.
    for rss_mib in [16, 1024] {
        let name = format!("podman+runc, {rss_mib} MiB");
        if options.wants(&name) {
            note(
                &name,
                podman::measure(rss_mib, moves),
                &mut rows,
                &mut failed,
            );
        }
    }
    let report = Report { rows };
    print!("{}", report.table());
    let dir = workspace()?.join("target/bench");
    fs::create_dir_all(&dir)?;
    fs::write(
        dir.join("migrate.json"),
        serde_json::to_vec_pretty(&report.rows)?,
    )?;
    plot::freeze(&report.rows, &dir.join("freeze.svg"))?;
    say(&format!(
        "`migrate.json` and `freeze.svg` are in `{}`; {:.0} s",
        dir.display(),
        began.elapsed().as_secs_f32()
    ));
    if sys::interrupted() {
        bail!("interrupted: the figures are not complete");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join("; "));
    }
    Ok(())
}

/// What runs on test hosts: the limit, and our moves.
fn on_a_cluster(
    options: &Options,
    moves: usize,
    rows: &mut Vec<Row>,
    failed: &mut Vec<String>,
) -> Result<()> {
    let streams = [1, 4].map(|connections| (format!("rustls x{connections}"), connections));
    let scenarios = scenario::all(options.quick);
    let names = scenarios.iter().map(ToString::to_string);
    let names = names.chain(streams.iter().map(|(name, _)| name.clone()));
    let mut names = names.chain([redis::NAME.to_owned()]);
    if !names.any(|name| options.wants(&name)) {
        return Ok(());
    }
    say("starting three hosts, each with an agent and a member");
    let cluster = Cluster::start(Hosts::default())?;
    cluster.load_workload()?;
    cluster.ok(&["network", "create", run::NETWORK])?;
    for (name, connections) in &streams {
        if options.wants(name) {
            note(name, stream::measure(&cluster, *connections), rows, failed);
        }
    }
    for scenario in &scenarios {
        let name = scenario.to_string();
        if options.wants(&name) {
            note(
                &name,
                run::scenario(&cluster, scenario, moves),
                rows,
                failed,
            );
        }
    }
    if options.wants(redis::NAME) {
        note(redis::NAME, redis::scenario(&cluster, moves), rows, failed);
    }
    Ok(())
}

/// A scenario that failed does not keep the others from being measured.
fn note(name: &str, row: Result<Row>, rows: &mut Vec<Row>, failed: &mut Vec<String>) {
    match row {
        Ok(row) => {
            say(&format!("{name}: {}", row.line()));
            rows.push(row);
        }
        Err(error) => {
            say(&format!("{name}: failed: {error:#}"));
            failed.push(name.to_owned());
        }
    }
}
