//! One scenario: a container with memory, a client of it on a third host, and moves there and
//! back.

use anyhow::{Context, Result, ensure};

use super::{
    moves::{self, Subject, wait_for_log},
    peak,
    report::Row,
    scenario::Scenario,
    shape::Shaped,
};
use crate::testbed::Cluster;

pub const NETWORK: &str = "bench";
const CONTAINER: &str = "memory";
const CLIENT: &str = "witness";
const PORT: u16 = 7000;
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
    let subject = Subject {
        container: CONTAINER,
        client: CLIENT,
        rss,
        check: &|| verify(cluster, &target, rss),
    };
    let row = moves::measure(cluster, &subject, moves)?;
    Ok(Row {
        system: "godwit".into(),
        rss_mib: Some(scenario.rss_mib),
        processes: Some(scenario.processes),
        writer_mb_s: Some(scenario.writer_mb_s),
        link_mbit: scenario.link_mbit,
        // It asks one thing at a time: that tells how long the link's queue is, and no more.
        answers_per_s: None,
        throughput_ratio: None,
        ..row
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
    workload(cluster, CLIENT, 3, &["witness", &target])?;
    wait_for_log(cluster, CLIENT, |text| text.contains("connected"))?;
    Ok(target)
}

pub fn workload(cluster: &Cluster, name: &str, host: u8, arguments: &[&str]) -> Result<()> {
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
