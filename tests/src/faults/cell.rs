//! One cell of the matrix: a migration comes to a point, something breaks there, and afterwards
//! everything is as it has to be.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    fault::{Cast, Fault, inject},
    point::{Actor, Point},
    watch::Watch,
};
use crate::{
    mover::{Mover, ended, view},
    scene::host_of,
    testbed::{Cluster, Hold, PATIENCE, wait_for},
};

/// For a migration to come to a point.
const REACHED: Duration = Duration::from_secs(60);
const MEMORY: &[&str] = &["--rss=4", "--rate=4"];

/// How a cell ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The phase that the migration ended in.
    Held(String),
    /// There is nothing to break then.
    Unreachable(String),
    Violated(String),
}

/// A cluster, and the container that is moved about. It is made anew after a violation.
pub struct Ground {
    pub cluster: Cluster,
    mover: Option<Mover>,
    cells: u32,
}

impl Ground {
    pub fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            mover: None,
            cells: 0,
        }
    }

    pub fn run(&mut self, point: Point, fault: Fault) -> Verdict {
        match self.play(point, fault) {
            Ok(phase) => Verdict::Held(phase),
            Err(error) => Verdict::Violated(format!("{error:#}")),
        }
    }

    fn play(&mut self, point: Point, fault: Fault) -> Result<String> {
        self.cells += 1;
        let cast = self.stage()?;
        let name = self.mover()?.name.clone();
        let id = self.cluster.id(&name)?;
        let groups = [cast.source, cast.destination]
            .map(|host| format!("/{}/h{host}/{}", self.cluster.cgroup(), &id[..12]));
        let watch = Watch::begin(groups.to_vec());

        let held = self.hold(point, &cast)?;
        let migration =
            self.mover()?
                .begin(&self.cluster, cast.destination, &["--timeout", "30s"])?;
        held.wait(REACHED).with_context(|| {
            view(&self.cluster, &migration)
                .unwrap_or_default()
                .to_string()
        })?;
        let broken = inject(&mut self.cluster, &cast, fault, &name, &migration)?;
        // A daemon that is dead or stopped finds the way free when it goes on.
        held.release()?;
        let began = Instant::now();
        thread::sleep(broken.lasts());
        broken.mend(&mut self.cluster)?;
        let end = ended(&self.cluster, &migration);
        println!("  {:?} after the fault", began.elapsed());
        let end = end?;
        if let Some(reason) = end["error"].as_str() {
            println!("  {reason}");
        }
        watch.end()?;
        self.check(&cast, &name, &id, &end, fault)?;
        Ok(end["phase"].as_str().unwrap_or_default().to_owned())
    }

    /// Everything up, and the container on a host whose member does not lead.
    fn stage(&mut self) -> Result<Cast> {
        self.cluster.wait_for_hosts(3)?;
        let leader = self.cluster.leader()?;
        let others: Vec<u8> = (1..=3).filter(|host| *host != leader).collect();
        if self.mover.is_none() {
            let name = format!("mover{}", self.cells);
            let mover = Mover::play(&self.cluster, &name, others[0], &[], MEMORY)?;
            self.mover = Some(mover);
        }
        let name = self.mover()?.name.clone();
        let source = number(&host_of(&self.cluster, &name)?)?;
        let source = if source == leader {
            self.cluster.migrate(&name, others[0])?;
            others[0]
        } else {
            source
        };
        let destination = others.into_iter().find(|host| *host != source);
        Ok(Cast {
            source,
            destination: destination.context("no other host")?,
            leader,
        })
    }

    fn mover(&self) -> Result<&Mover> {
        self.mover.as_ref().context("no container")
    }

    /// Asks the daemon that acts there to wait.
    fn hold(&self, point: Point, cast: &Cast) -> Result<Hold> {
        let host = match point.actor {
            Actor::Source => cast.source,
            Actor::Destination => cast.destination,
            Actor::Leader => cast.leader,
        };
        self.cluster.hold_nothing()?;
        self.cluster.hold(host, point.act)
    }

    /// What holds after every fault.
    fn check(
        &mut self,
        cast: &Cast,
        name: &str,
        id: &str,
        end: &Value,
        fault: Fault,
    ) -> Result<()> {
        self.cluster.wait_for_hosts(3)?;
        if let Fault::User(_) = fault
            && self.is_over(name)?
        {
            return self.over(name, id);
        }
        let expected = match end["phase"].as_str() {
            Some("done") => cast.destination,
            _ => cast.source,
        };
        let on = number(&host_of(&self.cluster, name)?)?;
        // It may have been taken back after its commit.
        ensure!(
            on == expected || !end["error"].is_null(),
            "it is on h{on}: {end}"
        );
        let mover = self.mover()?;
        mover.is_let_go(&self.cluster)?;
        let pages = mover.verify(&self.cluster).context("memory")?;
        ensure!(pages > 0, "no page was checked");
        mover.goes_on(&self.cluster).context("the witness")?;
        for host in [cast.source, cast.destination] {
            if host != on {
                self.nothing_left(host, id)?;
            }
        }
        // And it can be moved as if nothing had been.
        let to = if on == cast.source {
            cast.destination
        } else {
            cast.source
        };
        self.cluster
            .migrate(name, to)
            .context("the next migration")?;
        self.mover()?
            .verify(&self.cluster)
            .context("memory after the next migration")?;
        self.nothing_left(on, id)?;
        if self.cells.is_multiple_of(8) {
            // What the witness saw in all that time.
            self.mover()?.dismiss(&self.cluster)?;
            self.cluster.ok(&["rm", "-f", name])?;
            self.mover = None;
        }
        Ok(())
    }

    /// Whether a person has ended it.
    fn is_over(&self, name: &str) -> Result<bool> {
        let Ok(view) = self.cluster.json(&["inspect", name]) else {
            return Ok(true);
        };
        Ok(view["status"]["state"] == "exited")
    }

    /// It was stopped or removed: nothing of it may be anywhere.
    fn over(&mut self, name: &str, id: &str) -> Result<()> {
        let _ = self.cluster.output(&["rm", "-f", name])?;
        let witness = format!("witness-of-{name}");
        let _ = self.cluster.output(&["rm", "-f", &witness])?;
        self.mover = None;
        for host in 1..=3 {
            self.nothing_left(host, id)?;
        }
        Ok(())
    }

    fn nothing_left(&self, host: u8, id: &str) -> Result<()> {
        let directory = self.cluster.host(host).dir.join("data/containers").join(id);
        let group = format!("/{}/h{host}/{}", self.cluster.cgroup(), &id[..12]);
        let mut left = Vec::new();
        wait_for("nothing left", PATIENCE, || {
            left = processes(&group);
            if directory.exists() {
                left.push(directory.display().to_string());
            }
            left.is_empty()
        })
        .with_context(|| format!("left on h{host}: {left:?}"))
    }

    /// After a violation the next cell must not find its ruins.
    pub fn replace(&mut self, cluster: Cluster) {
        self.cluster = cluster;
        self.mover = None;
    }
}

fn number(host: &str) -> Result<u8> {
    match host
        .strip_prefix('h')
        .and_then(|number| number.parse().ok())
    {
        Some(number) => Ok(number),
        None => bail!("`{host}` is no test host"),
    }
}

fn processes(group: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let own = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            own.contains(group)
        })
        .map(|entry| format!("process {}", entry.file_name().display()))
        .collect()
}
