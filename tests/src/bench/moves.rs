//! Moves of one container there and back, while a client on a third host watches it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    observe::Observed,
    peak::Peak,
    report::{Row, median},
    sys,
};
use crate::testbed::{Cluster, wait_for};

/// To fill or check many GiB.
const PATIENCE: Duration = Duration::from_secs(120);
/// The client is watched for so long after a move, in milliseconds: also the time before the next
/// one from which its usual rate is taken.
const SETTLED: u64 = 1500;

/// What is moved, and who watches.
pub struct Subject<'a> {
    pub container: &'a str,
    /// Prints the lines that [`Observed`] reads.
    pub client: &'a str,
    /// Bytes of the container's anonymous memory.
    pub rss: u64,
    /// After each move: is everything what it should be?
    pub check: &'a dyn Fn() -> Result<()>,
}

/// What one move took.
#[derive(Default)]
struct Moves {
    freeze: Vec<f64>,
    gap: Vec<f64>,
    total: Vec<f64>,
    wire: Vec<f64>,
    peak: Vec<f64>,
    answers: Vec<f64>,
    throughput: Vec<f64>,
}

/// Moves it from h1 to h2 and back, so often in all. What the row says of the container itself is
/// left to the caller.
pub fn measure(cluster: &Cluster, subject: &Subject<'_>, moves: usize) -> Result<Row> {
    settle(cluster, subject.client, 0)?;
    let mut all = Moves::default();
    for number in 0..moves {
        ensure!(!sys::interrupted(), "interrupted");
        let to = if number % 2 == 0 { 2 } else { 1 };
        one_move(cluster, subject, to, &mut all)
            .with_context(|| format!("move {} of {moves}", number + 1))?;
    }
    Ok(Row {
        freeze_ms: median(all.freeze),
        client_gap_ms: median(all.gap),
        total_ms: median(all.total),
        wire_bytes: median(all.wire).map(|bytes| bytes as u64),
        nonzero_bytes: Some(subject.rss),
        peak_rss_ratio: median(all.peak),
        answers_per_s: median(all.answers),
        throughput_ratio: median(all.throughput),
        ..Row::default()
    })
}

fn one_move(cluster: &Cluster, subject: &Subject<'_>, to: u8, all: &mut Moves) -> Result<()> {
    let peak = Peak::watch(cluster.host(to));
    let moved = cluster.migrate(subject.container, to);
    let peak = peak.finish()?;
    let moved = moved?;
    // Figures of a move that lost something are worth nothing.
    (subject.check)()?;
    let number = |value: &Value, key: &str| {
        value[key]
            .as_f64()
            .with_context(|| format!("the migration has no `{key}`"))
    };
    let times = &moved["times"];
    let (freeze, total) = (number(times, "freeze_us")?, number(times, "total_us")?);
    let started = number(&moved, "started_ms")? as u64;
    let ended = started + (total / 1000.0) as u64;
    let seen = settle(cluster, subject.client, ended)?;
    ensure!(
        seen.trouble.is_empty(),
        "the client lost something: {}",
        seen.trouble.join("; ")
    );
    let gap = seen.gap(started, ended + SETTLED);
    let frozen = gap.map(|gap| gap.at_ms.saturating_sub(gap.gap_ms as u64));
    all.freeze.push(freeze / 1000.0);
    all.total.push(total / 1000.0);
    all.wire.push(number(times, "bytes")?);
    all.peak.push(peak as f64 / subject.rss as f64);
    all.gap.extend(gap.map(|gap| gap.gap_ms));
    let rates = frozen.and_then(|frozen| seen.throughput(started, frozen));
    all.answers.extend(rates.map(|(before, _)| before));
    all.throughput
        .extend(rates.map(|(before, during)| during / before));
    Ok(())
}

/// Waits until the client has told of enough time after this moment, or after now.
fn settle(cluster: &Cluster, client: &str, after: u64) -> Result<Observed> {
    let mut seen = Observed::parse(&cluster.logs(client)?);
    let end = after.max(seen.until()) + SETTLED;
    wait_for("the client's lines", PATIENCE, || {
        if let Ok(log) = cluster.logs(client) {
            seen = Observed::parse(&log);
        }
        seen.until() >= end || sys::interrupted()
    })?;
    Ok(seen)
}

pub fn wait_for_log(cluster: &Cluster, container: &str, fits: impl Fn(&str) -> bool) -> Result<()> {
    wait_for("the container's output", PATIENCE, || {
        cluster.logs(container).is_ok_and(|log| fits(&log)) || sys::interrupted()
    })
}
