//! A container whose memory moves ahead of its freeze, somebody who talks to it over one
//! connection all the while, and what may not be left of a move that was broken off.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    scene::host_of,
    testbed::{Cluster, PATIENCE, cgroups, list, on_host, wait_for},
    workload::witness::{Rate, Summary},
};

const PORT: &str = "7000";
/// For a migration to end, however it does: two hosts must notice that a link is cut, and a host
/// that comes back must be heard.
pub const END: Duration = Duration::from_secs(90);

/// A `memory` and its witness on the same host.
pub struct Mover {
    pub name: String,
    /// `ADDRESS:PORT`
    target: String,
    witness: String,
    witness_on: u8,
}

impl Mover {
    /// `limits`: of `run`; `options`: of the workload.
    pub fn play(
        cluster: &Cluster,
        name: &str,
        on: u8,
        limits: &[&str],
        options: &[&str],
    ) -> Result<Self> {
        let host = format!("h{on}");
        let mut arguments = vec!["run", "-d", "--name", name, "--host", &host];
        arguments.extend(limits);
        arguments.extend(["workload", "/bin/godwit-workload", "memory", "--echo", PORT]);
        arguments.extend(options);
        cluster.ok(&arguments)?;
        cluster.wait_for_log(name, |text| text.contains("ready"))?;
        let target = format!("{}:{PORT}", cluster.address(name)?);
        let mut mover = Self {
            name: name.to_owned(),
            target,
            witness: String::new(),
            witness_on: on,
        };
        mover.watch(cluster, on)?;
        Ok(mover)
    }

    /// Another witness; the one before has had its last word.
    pub fn watch(&mut self, cluster: &Cluster, on: u8) -> Result<()> {
        self.witness_on = on;
        self.witness = format!("witness-of-{}", self.name);
        let host = format!("h{on}");
        let (name, every) = (self.witness.as_str(), "--every=2000");
        cluster.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "--host",
            &host,
            "workload",
            "/bin/godwit-workload",
            "witness",
            &self.target,
            every,
        ])?;
        cluster.wait_for_log(name, |text| text.contains("connected"))
    }

    /// Asks it these things in turn, over a connection of their own.
    pub fn ask(&self, cluster: &Cluster, questions: &[&str]) -> Result<Vec<String>> {
        let host = format!("h{}", self.witness_on);
        let questions: Vec<String> = questions.iter().map(|q| format!("--ask={q}")).collect();
        let mut arguments = vec!["run", "--host", &host, "workload", "/bin/godwit-workload"];
        arguments.extend(["witness", &self.target]);
        arguments.extend(questions.iter().map(String::as_str));
        Ok(cluster.ok(&arguments)?.lines().map(str::to_owned).collect())
    }

    /// Tells it something that it does not answer.
    pub fn tell(&self, cluster: &Cluster, what: &str) -> Result<()> {
        let host = format!("h{}", self.witness_on);
        let what = format!("--ask={what}");
        let mut arguments = vec!["run", "-d", "--host", &host, "workload"];
        arguments.extend(["/bin/godwit-workload", "witness", &self.target, &what]);
        cluster.ok(&arguments).map(drop)
    }

    /// Every page of every process is what it should be. Answers how many there are.
    pub fn verify(&self, cluster: &Cluster) -> Result<u64> {
        let said = self.ask(cluster, &["verify"])?;
        let pages = said
            .first()
            .and_then(|line| line.strip_prefix("ok ")?.parse().ok());
        pages.with_context(|| format!("`{}` says {said:?}", self.name))
    }

    /// How many pings a second were answered lately.
    pub fn rates(&self, cluster: &Cluster) -> Result<Vec<Rate>> {
        let log = cluster.logs(&self.witness)?;
        Ok(log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The witness goes on to be answered from now on. Answers at how many pings a second, at
    /// best.
    pub fn goes_on(&self, cluster: &Cluster) -> Result<f64> {
        let before = self.rates(cluster)?.len();
        let mut best = 0.0_f64;
        wait_for("answers to the witness", PATIENCE, || {
            let rates = self.rates(cluster).unwrap_or_default();
            let new = rates.get(before..).unwrap_or_default();
            best = new.iter().map(|rate| rate.per_s).fold(0.0, f64::max);
            new.len() >= 5
        })?;
        Ok(best)
    }

    /// Its witness has lost nothing. Answers what it says last.
    pub fn dismiss(&self, cluster: &Cluster) -> Result<Summary> {
        cluster.ok(&["stop", &self.witness])?;
        let log = cluster.logs(&self.witness)?;
        cluster.ok(&["rm", &self.witness])?;
        let last = log.lines().last();
        let summary: Summary = last
            .and_then(|line| serde_json::from_str(line).ok())
            .with_context(|| format!("the witness ended without a summary: {log}"))?;
        ensure!(
            summary.replies > 10 && summary.replies_wrong == 0 && summary.connections_lost == 0,
            "{summary:?}"
        );
        Ok(summary)
    }

    /// Starts a move and leaves it to itself. Answers its id.
    pub fn begin(&self, cluster: &Cluster, to: u8, options: &[&str]) -> Result<String> {
        let host = format!("h{to}");
        let mut arguments = vec!["migrate", "--detach", &self.name, "--to", &host];
        arguments.extend(options);
        cluster.ok(&arguments)
    }

    /// The same, so slowly that its first round lasts. Returns in the midst of that, when its
    /// writes are tracked.
    pub fn begin_slowly(&self, cluster: &Cluster, to: u8) -> Result<String> {
        let id = self.begin(cluster, to, &["--max-bandwidth", "2M"])?;
        let mut last = Value::Null;
        wait_for("the first round", PATIENCE, || {
            last = view(cluster, &id).unwrap_or_default();
            last["progress"]["round"]
                .as_u64()
                .is_some_and(|round| round > 0)
        })
        .with_context(|| last.to_string())?;
        // Or the look for what is left of it would see nothing in any case.
        ensure!(self.is_tracked(cluster)?, "writes are not tracked: {last}");
        Ok(id)
    }

    /// After a move that came to nothing: it is where it was, let go of, and as fast as before.
    pub fn is_untouched(&self, cluster: &Cluster, on: u8, speed: f64) -> Result<()> {
        let host = host_of(cluster, &self.name)?;
        ensure!(host == format!("h{on}"), "it is on {host}");
        self.is_let_go(cluster)?;
        let goes = self.goes_on(cluster)?;
        // The machine is shared: this notices a container that is held back, not a busy core.
        ensure!(goes > speed / 4.0, "{goes} pings a second, {speed} before");
        Ok(())
    }

    fn is_tracked(&self, cluster: &Cluster) -> Result<bool> {
        let pids = cluster.processes_of(&cluster.id(&self.name)?)?;
        Ok(pids.into_iter().any(|pid| tracked(pid) > 0))
    }

    /// It runs, by nobody traced, tracked, stopped or slowed, once what was begun is over.
    pub fn is_let_go(&self, cluster: &Cluster) -> Result<()> {
        let id = cluster.id(&self.name)?;
        let mut last = Vec::new();
        wait_for("the container let go of", PATIENCE, || {
            let pids = cluster.processes_of(&id).unwrap_or_default();
            last = pids.iter().flat_map(|pid| holds(*pid)).collect();
            last.extend(slowed(cluster, &id));
            !pids.is_empty() && last.is_empty()
        })
        .with_context(|| format!("{last:?}"))
    }
}

/// What is on a host that no migration has to do with.
pub struct Rest {
    host: u8,
    seen: BTreeSet<String>,
}

/// Looks once the host's daemons have made all that they make only once.
pub fn at_rest(cluster: &Cluster, host: u8) -> Result<Rest> {
    let (name, at) = (format!("warm-{host}"), format!("h{host}"));
    let mut arguments = vec!["run", "-d", "--name", &name, "--host", &at, "workload"];
    arguments.extend(["/bin/godwit-workload", "exit", "0"]);
    cluster.ok(&arguments)?;
    cluster.ok(&["rm", "-f", &name])?;
    let seen = on_host(cluster, host)?;
    Ok(Rest { host, seen })
}

impl Rest {
    /// What is there now and was not. Where other containers are is known on every host.
    pub fn grown(&self, cluster: &Cluster) -> Result<Vec<String>> {
        let now = on_host(cluster, self.host)?;
        let grown = now.difference(&self.seen);
        Ok(grown
            .filter(|name| !name.starts_with("neighbour"))
            .cloned()
            .collect())
    }

    /// Nothing is left there.
    pub fn holds_again(&self, cluster: &Cluster) -> Result<()> {
        let left = self.grown(cluster)?;
        ensure!(left.is_empty(), "left on h{}: {left:#?}", self.host);
        Ok(())
    }
}

/// A migration as it stands.
pub fn view(cluster: &Cluster, id: &str) -> Result<Value> {
    cluster.json(&["migration", "inspect", id])
}

/// Waits for a migration's end.
pub fn ended(cluster: &Cluster, id: &str) -> Result<Value> {
    let mut last = Value::Null;
    wait_for("the migration's end", END, || {
        last = view(cluster, id).unwrap_or_default();
        matches!(last["phase"].as_str(), Some("done" | "aborted"))
    })
    .with_context(|| last.to_string())?;
    Ok(last)
}

/// The pages sent in each round.
pub fn sent(migration: &Value) -> Vec<u64> {
    list(&migration["rounds"])
        .iter()
        .filter_map(|round| round["sent_pages"].as_u64())
        .collect()
}

/// What holds a process up, in words.
fn holds(pid: i32) -> Vec<String> {
    let mut found = Vec::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let (state, tracer) = (line("State:"), line("TracerPid:"));
        if state.to_lowercase().starts_with('t') || !matches!(tracer.as_str(), "0" | "") {
            found.push(format!(
                "{}: {state}, traced by {tracer}",
                task.path().display()
            ));
        }
    }
    match tracked(pid) {
        0 => {}
        count => found.push(format!("{count} mappings of {pid} are tracked")),
    }
    found
}

/// Mappings whose writes are tracked.
fn tracked(pid: i32) -> usize {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut flags = smaps
        .lines()
        .filter_map(|line| line.strip_prefix("VmFlags:"));
    flags
        .by_ref()
        .filter(|flags| flags.split_whitespace().any(|flag| flag == "uw"))
        .count()
}

/// Files of its cgroups by which it is stopped or slowed.
fn slowed(cluster: &Cluster, id: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in cgroups::roots() {
        for host in &cluster.hosts {
            let group = root.join(cluster.cgroup()).join(&host.name).join(&id[..12]);
            for (file, free) in [
                ("cgroup.freeze", "0"),
                ("cpu.cfs_quota_us", "-1"),
                ("cpu.max", "max 100000"),
            ] {
                if let Ok(text) = fs::read_to_string(group.join(file))
                    && text.trim() != free
                {
                    found.push(format!("{}: {}", group.join(file).display(), text.trim()));
                }
            }
        }
    }
    found
}
