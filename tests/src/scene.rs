//! The scene of most tests: Redis, and a client that counts on one connection to it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::CloneFlags;
use serde_json::Value;

use crate::{
    testbed::{Cluster, PATIENCE, wait_for},
    workload::redis::{Gap, Summary},
};

/// A Redis and its client.
#[derive(Debug, Clone)]
pub struct Scene {
    pub redis: String,
    pub client: String,
    pub address: String,
}

impl Scene {
    /// Loads the images and makes the network `scene`. Once in a cluster.
    pub fn prepare(cluster: &Cluster) -> Result<()> {
        cluster.load_image(&cluster.programs().image("redis"))?;
        cluster.load_workload()?;
        cluster.ok(&["network", "create", "scene"]).map(drop)
    }

    /// Redis on one host, its client on another. Redis has a child, as servers that save to a
    /// disk do.
    pub fn play(cluster: &Cluster, redis_on: u8, client_on: u8) -> Result<Self> {
        let redis = format!("redis-{redis_on}-{client_on}");
        let client = format!("client-{redis_on}-{client_on}");
        let host = format!("h{redis_on}");
        let server =
            "sleep 1000000 & exec redis-server --bind 0.0.0.0 --protected-mode no --save ''";
        cluster.ok(&[
            "run",
            "-d",
            "--name",
            &redis,
            "--host",
            &host,
            "--network",
            "scene",
            "redis",
            "sh",
            "-c",
            server,
        ])?;
        cluster.wait_for_log(&redis, |text| text.contains("Ready to accept connections"))?;
        let address = cluster.address(&redis)?;
        let host = format!("h{client_on}");
        let target = format!("{address}:6379");
        cluster.ok(&[
            "run",
            "-d",
            "--name",
            &client,
            "--host",
            &host,
            "--network",
            "scene",
            "workload",
            "/bin/godwit-workload",
            "redis",
            &target,
        ])?;
        cluster.wait_for_log(&client, |text| text.contains("connected"))?;
        let scene = Self {
            redis,
            client,
            address,
        };
        scene.goes_on(cluster)?;
        Ok(scene)
    }

    /// Waits for replies of now: the counter of Redis grows.
    pub fn goes_on(&self, cluster: &Cluster) -> Result<()> {
        let before = self.count(cluster)?;
        let mut now = 0;
        wait_for("replies of Redis", PATIENCE, || {
            now = self.count(cluster).unwrap_or(0);
            now > before + 100
        })
        .with_context(|| format!("the counter stands at {now}, was {before}"))
    }

    /// What the key stands at, asked over a new connection from where the client is.
    fn count(&self, cluster: &Cluster) -> Result<u64> {
        let id = cluster.id(&self.client)?;
        let pid = *cluster.processes_of(&id)?.first().context("no client")?;
        ask(pid, &self.address)
    }

    /// Ends the client and insists that it lost nothing. Answers the pauses it saw.
    pub fn finish(&self, cluster: &Cluster) -> Result<Vec<Gap>> {
        cluster.ok(&["stop", &self.client])?;
        let log = cluster.logs(&self.client)?;
        let summary: Summary = log
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .with_context(|| format!("the client ended without a summary: {log}"))?;
        ensure!(
            summary.replies > 100 && summary.replies_wrong == 0 && summary.connections_lost == 0,
            "{summary:?}: {log}"
        );
        Ok(log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }
}

/// `GET count`, from inside the network namespace of a process.
fn ask(pid: i32, address: &str) -> Result<u64> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let address = format!("{address}:6379").parse()?;
    let asked = thread::spawn(move || -> Result<u64> {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let mut stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET count\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let size = lines.next().context("no answer")??;
        ensure!(size.starts_with('$'), "Redis answered `{size}`");
        Ok(lines.next().context("half an answer")??.parse()?)
    });
    asked.join().map_err(|_| anyhow!("asking Redis panicked"))?
}

/// Where a container is, as the cluster says.
pub fn host_of(cluster: &Cluster, container: &str) -> Result<String> {
    let view = cluster.json(&["inspect", container])?;
    view["host"].as_str().map(str::to_owned).context("no host")
}

/// The last migration of all.
pub fn last_migration(cluster: &Cluster) -> Result<Value> {
    let all = cluster.json(&["migration", "ls"])?;
    crate::testbed::list(&all)
        .first()
        .cloned()
        .context("no migration")
}

/// A patience for things that a person would call immediate.
pub const SOON: Duration = Duration::from_secs(5);
