//! One scenario: a container with memory, a client of it on a third host, and moves there and
//! back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    observe::Observed,
    peak::{self, Peak},
    report::{Row, median},
    scenario::Scenario,
    shape::Shaped,
    sys,
};
use crate::testbed::{Cluster, wait_for};

pub const NETWORK: &str = "bench";
const CONTAINER: &str = "memory";
const CLIENT: &str = "witness";
const PORT: u16 = 7000;
/// To fill or check many GiB.
const PATIENCE: Duration = Duration::from_secs(120);
/// The client is watched for so long after a move, in milliseconds: also the time before the next
/// one from which its usual rate is taken.
const SETTLED: u64 = 1500;

/// What one move took.
#[derive(Default)]
struct Moves {
    freeze: Vec<f64>,
    gap: Vec<f64>,
    total: Vec<f64>,
    wire: Vec<f64>,
    peak: Vec<f64>,
    throughput: Vec<f64>,
}

/// Measures it and removes what it started.
pub fn scenario(cluster: &Cluster, scenario: &Scenario, moves: usize) -> Result<Row> {
    let measured = measure(cluster, scenario, moves);
    // Also those that a failure left; what is not there is refused, and that is fine.
    for container in [CLIENT, CONTAINER, ASKER] {
        let _ = cluster.output(&["rm", "-f", container]);
    }
    measured
}

fn measure(cluster: &Cluster, scenario: &Scenario, moves: usize) -> Result<Row> {
    let target = start(cluster, scenario)?;
    let rss = peak::of_program(cluster.host(1), "godwit-workload");
    ensure!(rss > 0, "the container's processes can't be found");
    let _shaped = match scenario.link_mbit {
        Some(mbit) => Some(Shaped::new(&cluster.hosts[..2], mbit)?),
        None => None,
    };
    settle(cluster, 0)?;
    let mut all = Moves::default();
    for number in 0..moves {
        ensure!(!sys::interrupted(), "interrupted");
        let to = if number % 2 == 0 { 2 } else { 1 };
        one_move(cluster, to, rss, &target, &mut all)
            .with_context(|| format!("move {} of {moves}", number + 1))?;
    }
    Ok(Row {
        system: "godwit".into(),
        rss_mib: Some(scenario.rss_mib),
        processes: Some(scenario.processes),
        writer_mb_s: Some(scenario.writer_mb_s),
        link_mbit: scenario.link_mbit,
        freeze_ms: median(all.freeze),
        client_gap_ms: median(all.gap),
        total_ms: median(all.total),
        wire_bytes: median(all.wire).map(|bytes| bytes as u64),
        nonzero_bytes: Some(rss),
        peak_rss_ratio: median(all.peak),
        throughput_ratio: median(all.throughput),
    })
}

/// The container on h1 and its client on h3. Answers the container's address and port.
fn start(cluster: &Cluster, scenario: &Scenario) -> Result<String> {
    let (rss, processes) = (scenario.rss_mib.to_string(), scenario.processes.to_string());
    let (rate, port) = (scenario.writer_mb_s.to_string(), PORT.to_string());
    let memory = ["memory", "--rss", &rss, "--processes", &processes];
    let rest = ["--rate", &rate, "--echo", &port];
    workload(cluster, CONTAINER, 1, &[&memory[..], &rest[..]].concat())?;
    wait_for_log(cluster, CONTAINER, |text| text.contains("ready"))?;
    let inspected = cluster.json(&["inspect", CONTAINER])?;
    let address = inspected["spec"]["network"]["address"]
        .as_str()
        .context("the container has no address")?;
    let target = format!("{address}:{PORT}");
    // Back to back where the link is the limit; on an unshaped link that would take a processor
    // from the move itself.
    let every = if scenario.link_mbit.is_some() {
        "0"
    } else {
        "500"
    };
    workload(cluster, CLIENT, 3, &["witness", &target, "--every", every])?;
    wait_for_log(cluster, CLIENT, |text| text.contains("connected"))?;
    Ok(target)
}

fn workload(cluster: &Cluster, name: &str, host: u8, arguments: &[&str]) -> Result<()> {
    let host = format!("h{host}");
    let mut all = vec![
        "run",
        "-d",
        "--name",
        name,
        "--host",
        &host,
        "--network",
        NETWORK,
    ];
    all.extend(["workload", "/bin/godwit-workload"]);
    all.extend(arguments);
    cluster.ok(&all).map(drop)
}

fn one_move(cluster: &Cluster, to: u8, rss: u64, target: &str, all: &mut Moves) -> Result<()> {
    let peak = Peak::watch(cluster.host(to));
    let moved = cluster.migrate(CONTAINER, to);
    let peak = peak.finish()?;
    let moved = moved?;
    // Figures of a move that lost something are worth nothing.
    verify(cluster, target, rss)?;
    let number = |value: &Value, key: &str| {
        value[key]
            .as_f64()
            .with_context(|| format!("the migration has no `{key}`"))
    };
    let times = &moved["times"];
    let (freeze, total) = (number(times, "freeze_us")?, number(times, "total_us")?);
    let started = number(&moved, "started_ms")? as u64;
    let ended = started + (total / 1000.0) as u64;
    let seen = settle(cluster, ended)?;
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
    all.peak.push(peak as f64 / rss as f64);
    all.gap.extend(gap.map(|gap| gap.gap_ms));
    all.throughput
        .extend(frozen.and_then(|frozen| seen.throughput_ratio(started, frozen)));
    Ok(())
}

const ASKER: &str = "asker";

/// Stops all writing, has every page checked, and lets it go on.
fn verify(cluster: &Cluster, target: &str, rss: u64) -> Result<()> {
    let ask = ["--ask", "pause", "--ask", "verify", "--ask", "go"];
    let mut all = vec!["run", "--name", ASKER, "--host", "h3", "--network", NETWORK];
    all.extend(["workload", "/bin/godwit-workload", "witness", target]);
    all.extend(ask);
    let said = cluster.ok(&all)?;
    cluster.ok(&["rm", ASKER])?;
    let pages: u64 = said
        .lines()
        .find_map(|line| line.strip_prefix("ok ")?.parse().ok())
        .with_context(|| format!("after the move: {}", said.replace('\n', ", ")))?;
    // What was measured as its memory, but for stacks and tables.
    ensure!(
        pages * 4096 <= rss && pages * 4096 * 2 > rss,
        "{pages} pages were checked, the container had {rss} bytes"
    );
    Ok(())
}

/// Waits until the client has told of enough time after this moment, or after now.
fn settle(cluster: &Cluster, after: u64) -> Result<Observed> {
    let mut seen = Observed::parse(&cluster.logs(CLIENT)?);
    let end = after.max(seen.until()) + SETTLED;
    wait_for("the client's lines", PATIENCE, || {
        if let Ok(log) = cluster.logs(CLIENT) {
            seen = Observed::parse(&log);
        }
        seen.until() >= end || sys::interrupted()
    })?;
    Ok(seen)
}

fn wait_for_log(cluster: &Cluster, container: &str, fits: impl Fn(&str) -> bool) -> Result<()> {
    wait_for("the container's output", PATIENCE, || {
        cluster.logs(container).is_ok_and(|log| fits(&log)) || sys::interrupted()
    })
}
