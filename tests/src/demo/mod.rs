//! The demo: Redis moves through three hosts while a client counts on one connection.

mod footprint;
mod report;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
pub use report::{Footprint, Move, Report};

use crate::{
    programs::workspace,
    testbed::{Cluster, Options, wait_for},
    workload::redis::{Gap, Summary},
};

fn dir() -> Result<PathBuf> {
    Ok(workspace()?.join("target/demo"))
}

fn say(text: &str) {
    println!("demo: {text}");
}

/// Runs it and writes `target/demo/report.json`.
pub fn run(keep: bool, rounds: u32) -> Result<()> {
    let began = Instant::now();
    let dir = dir()?;
    // One that was kept before would be in the way, and nobody would end it any more.
    stop()?;
    fs::create_dir_all(&dir)?;
    say("starting three hosts, each with an agent and a member");
    let mut cluster = Cluster::start(Options {
        lasting: keep,
        dir: Some(dir.join("cluster")),
        ..Options::default()
    })?;
    let played = play(&cluster, rounds);
    if let Ok(report) = &played {
        let path = dir.join("report.json");
        fs::write(&path, serde_json::to_vec_pretty(report)?)?;
        print!("{}", report.table());
        say(&format!("report: {}", path.display()));
    }
    if keep {
        played?;
        explain(&cluster)?;
    } else {
        cluster.stop();
        let report = played?;
        say(&format!(
            "everything is gone again; {:.1} s",
            began.elapsed().as_secs_f32()
        ));
        ensure!(
            report.connections_lost == 0 && report.replies_wrong == 0,
            "the client lost something: see the report"
        );
    }
    Ok(())
}

fn play(cluster: &Cluster, rounds: u32) -> Result<Report> {
    say("loading images");
    cluster.load_image(&cluster.programs().image("redis"))?;
    cluster.load_workload()?;
    say("Redis on h1, a client on h3");
    cluster.ok(&["network", "create", "demo"])?;
    cluster.ok(&[
        "run",
        "-d",
        "--name",
        "redis",
        "--host",
        "h1",
        "--network",
        "demo",
        "redis",
    ])?;
    let redis = cluster.json(&["inspect", "redis"])?;
    let address = redis["spec"]["network"]["address"]
        .as_str()
        .context("Redis has no address")?
        .to_owned();
    wait_for("Redis to listen", Duration::from_secs(20), || {
        cluster
            .logs("redis")
            .is_ok_and(|text| text.contains("Ready to accept connections"))
    })?;
    let target = format!("{address}:6379");
    cluster.ok(&[
        "run",
        "-d",
        "--name",
        "client",
        "--host",
        "h3",
        "--network",
        "demo",
        "workload",
        "/bin/godwit-workload",
        "redis",
        &target,
    ])?;
    cluster.wait_for_log("client", |text| text.contains("connected"))?;

    let mut moves = Vec::new();
    for _ in 0..rounds {
        for to in [2, 3, 1] {
            // Some traffic between two moves, so that each is a move of a busy server.
            std::thread::sleep(Duration::from_millis(500));
            let moved = cluster.migrate("redis", to)?;
            let moved = Move::of(&moved)?;
            say(&moved.line());
            moves.push(moved);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let footprint = footprint::measure(cluster)?;
    cluster.ok(&["stop", "client"])?;
    let log = cluster.logs("client")?;
    let summary: Summary = log
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok())
        .with_context(|| format!("the client ended without a summary: {log}"))?;
    let gaps: Vec<Gap> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    for moved in &mut moves {
        moved.find_gap(&gaps);
    }
    Ok(Report::new(summary, moves, footprint))
}

fn explain(cluster: &Cluster) -> Result<()> {
    let me = std::env::current_exe()?;
    let bin = me.parent().unwrap_or(Path::new(".")).display().to_string();
    println!(
        "\nThe cluster goes on. Type, for example:\n\n  \
         export PATH={bin}:$PATH GODWIT_CONFIG={}\n  \
         godwit ps -a\n  \
         godwit migrate redis --to h2\n  \
         godwit logs redis\n  \
         godwit host ls; godwit member ls; godwit migration ls\n\n\
         To break something:\n\n  \
         kill -9 {}     # the agent of h1; then: godwit-testbed start-agent 1\n  \
         kill -9 {}     # the member of h1; then: godwit-testbed start-member 1\n\n\
         To end it:\n\n  \
         cargo xtask demo --stop\n",
        cluster.admin_dir().display(),
        first(&cluster.host(1).processes("godwit-agent")?),
        first(&cluster.host(1).processes("godwit-controller")?),
    );
    Ok(())
}

fn first(pids: &[i32]) -> String {
    pids.first()
        .map_or_else(|| "PID".to_owned(), ToString::to_string)
}

fn kept() -> Result<Option<Cluster>> {
    Cluster::adopt(&dir()?.join("cluster"))
}

/// Ends a kept cluster. None there is fine.
pub fn stop() -> Result<()> {
    if let Some(mut cluster) = kept()? {
        cluster.stop();
        say("the kept cluster is gone");
    }
    Ok(())
}

pub fn start_agent(host: u8) -> Result<()> {
    let mut cluster = kept()?.context("no cluster was kept: `cargo xtask demo --keep`")?;
    cluster.start_agent(host, &[], true)
}

pub fn start_member(host: u8) -> Result<()> {
    let mut cluster = kept()?.context("no cluster was kept: `cargo xtask demo --keep`")?;
    cluster.start_member(host, true)
}
