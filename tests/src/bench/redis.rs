//! A Redis under the load of many clients, and what they get of it while it moves over a link that
//! the move could fill.

use anyhow::{Result, ensure};

use super::{
    moves::{self, Subject, wait_for_log},
    peak,
    report::Row,
    run::{NETWORK, workload},
    shape::Shaped,
};
use crate::testbed::Cluster;

/// In the table and in `--only`.
pub const NAME: &str = "godwit redis";
const SERVER: &str = "redis";
const CLIENT: &str = "load";
const CHECKER: &str = "checker";
const LINK_MBIT: u64 = 1000;
/// With values of 550 bytes on average and what Redis needs for each: about 512 MiB.
const KEYS: &str = "750000";

/// Measures it and removes what it started.
pub fn scenario(cluster: &Cluster, moves: usize) -> Result<Row> {
    let measured = measure(cluster, moves);
    // Also those that a failure left; what is not there is refused, and that is fine.
    for container in [CHECKER, CLIENT, SERVER] {
        let _ = cluster.output(&["rm", "-f", container]);
    }
    measured
}

fn measure(cluster: &Cluster, moves: usize) -> Result<Row> {
    let target = start(cluster)?;
    let rss = peak::of_processes(&cluster.processes_of(&cluster.id(SERVER)?)?);
    ensure!(rss > 0, "Redis can't be found");
    let _shaped = Shaped::new(&cluster.hosts[..2], LINK_MBIT)?;
    let subject = Subject {
        container: SERVER,
        client: CLIENT,
        rss,
        check: &|| check(cluster, &target),
    };
    let row = moves::measure(cluster, &subject, moves)?;
    ensure!(
        row.throughput_ratio.is_some(),
        "the moves were too short to speak of a rate"
    );
    Ok(Row {
        system: NAME.into(),
        rss_mib: Some(rss >> 20),
        processes: Some(1),
        link_mbit: Some(LINK_MBIT),
        ..row
    })
}

/// Redis on h1, its clients on h3. Answers its address and port.
fn start(cluster: &Cluster) -> Result<String> {
    cluster.load_image(&cluster.programs().image("redis"))?;
    let run = ["run", "-d", "--name", SERVER, "--host", "h1"];
    // It saves nothing, as the image has it: no fork.
    let image = ["--network", NETWORK, "redis"];
    cluster.ok(&[&run[..], &image].concat())?;
    let listens = |text: &str| text.contains("Ready to accept connections");
    wait_for_log(cluster, SERVER, listens)?;
    let target = format!("{}:6379", cluster.address(SERVER)?);
    workload(
        cluster,
        CLIENT,
        3,
        &["load", &target, "--keys", KEYS, "--fill"],
    )?;
    wait_for_log(cluster, CLIENT, |text| text.contains("connected"))?;
    Ok(target)
}

/// Gets every key, while the load goes on.
fn check(cluster: &Cluster, target: &str) -> Result<()> {
    let run = ["run", "--name", CHECKER, "--host", "h3"];
    let program = ["--network", NETWORK, "workload", "/bin/godwit-workload"];
    let load = ["load", target, "--keys", KEYS, "--check"];
    let said = cluster.ok(&[&run[..], &program, &load].concat())?;
    cluster.ok(&["rm", CHECKER])?;
    ensure!(
        said.ends_with(&format!("checked {KEYS} wrong 0")),
        "after the move: {said}"
    );
    Ok(())
}
