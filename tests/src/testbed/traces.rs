//! What a cluster leaves behind: on this machine once it has ended, and on its hosts once its
//! containers are gone. Only what carries its names, directory or namespaces counts: other
//! clusters run beside it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Cluster, Host};
use crate::command::{run, sh};

/// By what a cluster's things are known.
#[derive(Debug, Clone)]
pub struct Marks {
    bridge: String,
    cgroup: String,
    dir: PathBuf,
    /// `net:[4026532000]` and the like, of its hosts and of the containers in them.
    namespaces: BTreeSet<String>,
    /// When they were seen: the kernel gives their numbers to others later.
    seen: u64,
}

impl Marks {
    /// Taken while it runs, since its namespaces can't be known later.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let mut namespaces = BTreeSet::new();
        let cgroup = cluster.cgroup();
        let holders: Vec<i32> = cluster.hosts.iter().map(Host::pid).collect();
        let ours: BTreeSet<String> = namespaces_of(std::process::id() as i32);
        for pid in pids()? {
            if holders.contains(&pid) || in_cgroup(pid, &cgroup) {
                namespaces.extend(namespaces_of(pid).difference(&ours).cloned());
            }
        }
        Ok(Self {
            bridge: cluster.bridge(),
            cgroup,
            dir: cluster.dir().to_owned(),
            namespaces,
            seen: now()?,
        })
    }

    /// How many namespaces are watched for: three of each host, and those of its containers.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// Links, network namespaces, packet rules, mounts, cgroups and processes that are there.
    pub fn found(&self) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let port = format!("{}h", self.bridge);
        for name in links(&sh("ip -o link")?) {
            if name == self.bridge || name.starts_with(&port) {
                found.insert(format!("link {name}"));
            }
        }
        let dir = self.dir.display().to_string();
        for line in sh("ip netns")?
            .lines()
            .chain(sh("nft list ruleset")?.lines())
        {
            if line.contains(&dir) || line.contains(&self.bridge) || line.contains(&self.cgroup) {
                found.insert(format!("netns or rule {line}"));
            }
        }
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            if line.contains(&dir) {
                found.insert(format!("mount {line}"));
            }
        }
        for root in super::cgroups::roots() {
            if root.join(&self.cgroup).exists() {
                found.insert(format!("cgroup {}", root.join(&self.cgroup).display()));
            }
        }
        for pid in pids()? {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let inside = || {
                started(pid).is_some_and(|at| at <= self.seen)
                    && !namespaces_of(pid).is_disjoint(&self.namespaces)
            };
            if line.contains(&dir) || in_cgroup(pid, &self.cgroup) || inside() {
                found.insert(format!("process {pid} {line}"));
            }
        }
        if self.dir.exists() {
            found.insert(format!("directory {dir}"));
        }
        Ok(found)
    }
}

/// What is on one host of a running cluster: links, packet rules, mounts, cgroups, programs, the
/// memory that its daemons hold for containers, and the directories of containers.
pub fn on_host(cluster: &Cluster, number: u8) -> Result<BTreeSet<String>> {
    let host = cluster.host(number);
    let inside = |program: &str, arguments: &[&str]| run(host.command(program, arguments));
    let mut found = BTreeSet::new();
    found.extend(links(&inside("ip", &["-o", "link"])?).map(|name| format!("link {name}")));
    for (what, text) in [
        ("rule", inside("nft", &["list", "ruleset"])?),
        ("mount", inside("cat", &["/proc/self/mounts"])?),
        (
            "neighbour",
            inside("ip", &["neigh", "show", "nud", "permanent"])?,
        ),
    ] {
        // Counters of rules grow, whatever happens.
        let lines = text
            .lines()
            .filter(|line| !line.contains("counter packets"));
        found.extend(lines.map(|line| format!("{what} {line}")));
    }
    for root in super::cgroups::roots() {
        names(
            &root.join(cluster.cgroup()).join(&host.name),
            "cgroup",
            &mut found,
        );
    }
    for dir in ["data/containers", "run/shims", "run/netns"] {
        names(&host.dir.join(dir), dir, &mut found);
    }
    let group = format!("/{}/{}/", cluster.cgroup(), host.name);
    for pid in pids()? {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if cgroup.contains(&group) {
            found.insert(format!("process {pid} of a container"));
        }
    }
    for program in ["godwit-shim", "criu"] {
        for pid in host.processes(program)? {
            found.insert(format!("process {pid} {program}"));
        }
    }
    for program in ["godwit-agent", "godwit-shim"] {
        for pid in host.processes(program)? {
            for held in memory_files(pid) {
                found.insert(format!("memory {held} of {program} {pid}"));
            }
        }
    }
    Ok(found)
}

/// The nameless files in memory that a process has open, or mapped.
fn memory_files(pid: i32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if let Ok(target) = fs::read_link(entry.path()) {
            found.insert(target.display().to_string());
        }
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    found.extend(mapped.map(str::to_owned));
    found.retain(|name| name.starts_with("/memfd:"));
    found
}

fn names(dir: &Path, what: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // A cgroup's files are the kernel's.
        if what != "cgroup" || entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(format!("{what} {}", entry.path().display()));
        }
    }
}

fn links(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let name = line.split(": ").nth(1)?;
        name.split('@').next()
    })
}

fn pids() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc")?.flatten();
    Ok(entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

fn in_cgroup(pid: i32, cgroup: &str) -> bool {
    // Whole names: `godwit-testbed-1` is not `godwit-testbed-12`.
    fs::read_to_string(format!("/proc/{pid}/cgroup"))
        .is_ok_and(|text| text.split(['/', '\n', ':']).any(|name| name == cgroup))
}

/// Since the machine's start, in hundredths of a second: what `/proc` counts in.
fn now() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = text.split(' ').next().context("`/proc/uptime`")?.parse()?;
    Ok((seconds * 100.0) as u64)
}

fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

fn namespaces_of(pid: i32) -> BTreeSet<String> {
    ["net", "mnt", "pid"]
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .map(|link| link.display().to_string())
        .collect()
}
