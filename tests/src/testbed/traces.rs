//! What a cluster could leave behind on this machine: taken before and after, and compared.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Result;

use crate::command::sh;

/// Links, network namespaces, packet rules, mounts, cgroups and processes whose names are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    pub found: BTreeSet<String>,
}

const PROGRAMS: [&str; 7] = [
    "godwit-agent",
    "godwit-controller",
    "godwit-shim",
    "godwit-testbed",
    "godwit-workload",
    "redis-server",
    "criu",
];

impl Traces {
    pub fn take() -> Result<Self> {
        let mut found = BTreeSet::new();
        for line in sh("ip -o link")?.lines() {
            if let Some(name) = line.split(": ").nth(1)
                && name.starts_with("gw")
            {
                found.insert(format!("link {}", name.split('@').next().unwrap_or(name)));
            }
        }
        for line in sh("ip netns")?.lines() {
            found.insert(format!("netns {line}"));
        }
        for line in sh("nft list ruleset")?
            .lines()
            .filter(|line| line.contains("godwit"))
        {
            found.insert(format!("nft {line}"));
        }
        for line in fs::read_to_string("/proc/self/mounts")?.lines() {
            if line.contains("godwit") || line.contains("/merged ") {
                found.insert(format!("mount {line}"));
            }
        }
        cgroups(Path::new("/sys/fs/cgroup"), 0, &mut found);
        processes(&mut found)?;
        Ok(Self { found })
    }

    /// What is there now and was not before.
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.found.difference(&before.found).cloned().collect()
    }
}

fn cgroups(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 6 {
            if entry.file_name().to_string_lossy().contains("godwit") {
                found.insert(format!("cgroup {}", path.display()));
            }
            cgroups(&path, depth + 1, found);
        }
    }
}

fn processes(found: &mut BTreeSet<String>) -> Result<()> {
    let me = std::process::id();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // A zombie has no `exe` any more, but its name.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        // The kernel cuts names to 15 bytes.
        let ours = PROGRAMS
            .iter()
            .any(|program| program.get(..15).unwrap_or(program) == name.trim());
        if pid != me && ours {
            found.insert(format!("process {pid} {}", name.trim()));
        }
    }
    Ok(())
}
