//! Every phase of a migration × everything that can break: real processes, real CRIU, a real
//! group of members. `godwit-testbed faults`, started by `cargo xtask faults`.
//!
//! `point` says where, `fault` what breaks, `reach` which of them there are, `cell` plays one of each and checks what has to hold,
//! `watch` sees whether ever two copies ran, `report` tells of all.

mod cell;
mod fault;
mod point;
mod reach;
mod report;
mod watch;

use std::{fs, time::Instant};

use anyhow::Result;

pub use cell::{Ground, Verdict};
pub use fault::{Fault, distinct};
pub use point::{Point, all as points};
pub use reach::fast;
use report::Report;

use crate::{
    programs::workspace,
    testbed::{Cluster, Options as Hosts},
};

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Only faults whose name contains this
    #[arg(long)]
    fault: Option<String>,
    /// Only points whose phase contains this
    #[arg(long)]
    phase: Option<String>,
}

/// Bytes of a host's disk, and of a member's.
const DISK: u64 = 192 << 20;
const MEMBER_DISK: u64 = 64 << 20;

/// Three hosts with an agent and a member each, their disks small enough to be filled.
pub fn cluster() -> Result<Cluster> {
    let cluster = Cluster::start(Hosts {
        small: (1..=3).map(|host| (host, DISK)).collect(),
        small_members: (1..=3).map(|host| (host, MEMBER_DISK)).collect(),
        ..Hosts::default()
    })?;
    cluster.load_workload()?;
    Ok(cluster)
}

/// Runs the matrix and writes `target/faults/report.json`. An error: something did not hold.
pub fn run(options: &Options) -> Result<()> {
    let chosen =
        |part: &Option<String>, name: &str| part.as_ref().is_none_or(|part| name.contains(part));
    let faults = Fault::all();
    distinct(&faults)?;
    let points: Vec<Point> = points()
        .into_iter()
        .filter(|point| chosen(&options.phase, &point.phase.to_string()))
        .collect();
    let cells = faults
        .into_iter()
        .filter(|fault| chosen(&options.fault, &fault.to_string()))
        .flat_map(|fault| points.iter().map(move |point| (*point, fault)));
    let report = play(cells)?;
    let dir = workspace()?.join("target/faults");
    fs::create_dir_all(&dir)?;
    report.write(&dir.join("report.json"))?;
    report.holds()
}

/// Plays these cells in this order, and prints what comes of each, and of all. An error: no
/// cluster to play them on.
pub fn play(cells: impl IntoIterator<Item = (Point, Fault)>) -> Result<Report> {
    let began = Instant::now();
    let mut report = Report::default();
    let mut ground = Ground::new(cluster()?);
    for (point, fault) in cells {
        let verdict = match reach::unreachable(fault, point.phase) {
            Some(reason) => Verdict::Unreachable(reason.to_owned()),
            None => ground.run(point, fault),
        };
        println!(
            "{:>5.0} s  {fault} at {point}: {verdict:?}",
            began.elapsed().as_secs_f32()
        );
        let violated = matches!(verdict, Verdict::Violated(_));
        report.add(point.phase.to_string(), fault.to_string(), verdict);
        if violated {
            ground.cluster.stop();
            ground.replace(cluster()?);
        }
    }
    print!("{}", report.table());
    Ok(report)
}
