//! What the daemons cost while they have nothing to do.

use std::fs;

use anyhow::{Context, Result};

use super::report::Footprint;
use crate::testbed::Cluster;

/// The largest resident set of each kind of daemon on any host, in MiB.
pub fn measure(cluster: &Cluster) -> Result<Footprint> {
    let largest = |program: &str| -> Result<f64> {
        let mut most = 0.0f64;
        for host in &cluster.hosts {
            for pid in host.processes(program)? {
                most = most.max(resident(pid)?);
            }
        }
        Ok(most)
    };
    Ok(Footprint {
        agent_mib: largest("godwit-agent")?,
        member_mib: largest("godwit-controller")?,
        shim_mib: largest("godwit-shim")?,
    })
}

fn resident(pid: i32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .context("no VmRSS")?
        .parse()?;
    Ok(kib / 1024.0)
}
