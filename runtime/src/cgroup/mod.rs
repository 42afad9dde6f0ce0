//! A container's control group: limits, membership, the freezer and the end.
//!
//! Limits and membership go through libcgroups, on v1, v2 and hybrid hosts. Freezing is ours,
//! always in a v2 tree: on a hybrid host that tree has no controllers, but its freezer works,
//! stops tasks with a single write, and keeps them killable.

mod limits;
mod strangers;
mod visit;

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use godwit_types::{CgroupMode, Limits};
use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, CgroupSetup, ControllerOpt,
    create_cgroup_manager, get_cgroup_setup,
};
use libcgroups_nix::unistd::Pid as ManagerPid;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde_json::json;
pub use strangers::strangers;
pub use visit::Visit;

/// How long tasks may take to freeze, thaw or die before it is an error.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroups can't be found on this host: {0}")]
    Discover(String),
    #[error("cgroup `{group}`: {step} failed: {problem}")]
    Manager {
        group: String,
        step: &'static str,
        problem: String,
    },
    #[error("cgroup file `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{option}`: `{value}` was refused by the kernel (`{path}`)")]
    Limit {
        option: &'static str,
        value: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`--cpuset-cpus`: this host has no processor {0}")]
    Processors(String),
    #[error("cgroup `{group}` has no v2 directory, so its tasks can't be frozen; mount cgroup2")]
    NoFreezer { group: String },
    #[error("cgroup `{group}`: tasks did not {step} in {} s", PATIENCE.as_secs())]
    Timeout { group: String, step: &'static str },
}

type Result<T, E = CgroupError> = std::result::Result<T, E>;

/// Which hierarchies this host has.
pub fn mode() -> Result<CgroupMode> {
    match get_cgroup_setup().map_err(|error| CgroupError::Discover(error.to_string()))? {
        CgroupSetup::Unified => Ok(CgroupMode::V2),
        CgroupSetup::Hybrid => Ok(CgroupMode::Hybrid),
        CgroupSetup::Legacy => Ok(CgroupMode::V1),
    }
}

fn v2_root(mode: CgroupMode) -> Option<&'static Path> {
    match mode {
        CgroupMode::V2 => Some(Path::new("/sys/fs/cgroup")),
        CgroupMode::Hybrid => Some(Path::new("/sys/fs/cgroup/unified")),
        CgroupMode::V1 => None,
    }
}

/// Whether this group is asked to be frozen. Asked often: the hierarchies are looked for once.
pub fn is_frozen(path: &str) -> bool {
    static ROOT: std::sync::OnceLock<Option<&'static Path>> = std::sync::OnceLock::new();
    let root = ROOT.get_or_init(|| mode().ok().and_then(v2_root));
    root.is_some_and(|root| {
        let file = root.join(path).join("cgroup.freeze");
        fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
    })
}

/// Where a v1 controller is mounted, alone or with others.
fn v1_mount(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (at, kind, options) = (fields.nth(1)?, fields.next()?, fields.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == controller))
            .then(|| PathBuf::from(at))
    })
}

/// One container's group, by its path below the hierarchies' roots.
pub struct Group {
    path: String,
    mode: CgroupMode,
    manager: AnyCgroupManager,
    v2: Option<PathBuf>,
}

impl Group {
    /// Makes nothing yet.
    pub fn new(path: &str) -> Result<Self> {
        let mode = mode()?;
        let manager = create_cgroup_manager(CgroupConfig {
            cgroup_path: Path::new("/").join(path),
            systemd_cgroup: false,
            container_name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        })
        .map_err(|error| CgroupError::Discover(error.to_string()))?;
        let v2 = v2_root(mode).map(|root| root.join(path));
        Ok(Self {
            path: path.to_owned(),
            mode,
            manager,
            v2,
        })
    }

    fn failed(&self, step: &'static str) -> impl FnOnce(String) -> CgroupError {
        let group = self.path.clone();
        move |problem| CgroupError::Manager {
            group,
            step,
            problem,
        }
    }

    /// Puts a process, and all it starts from now on, into the group; makes the group first.
    pub fn join(&self, pid: i32) -> Result<()> {
        self.manager
            .add_task(ManagerPid::from_raw(pid))
            .map_err(|error| self.failed("joining")(error.to_string()))?;
        self.join_freezer(pid)
    }

    /// Puts a process into the v2 directory alone: where the controllers are on v1, libcontainer
    /// knows nothing of it.
    pub fn join_freezer(&self, pid: i32) -> Result<()> {
        let (CgroupMode::Hybrid, Some(dir)) = (self.mode, &self.v2) else {
            return Ok(());
        };
        fs::create_dir_all(dir).map_err(|source| CgroupError::File {
            path: dir.clone(),
            source,
        })?;
        write(&dir.join("cgroup.procs"), &pid.to_string())
    }

    /// Everything that bounds the group's tasks. Answers what this host can't do, a line each.
    pub fn limit(&self, limits: &Limits, devices: &serde_json::Value) -> Result<Vec<String>> {
        if self.mode != CgroupMode::V2 {
            let resources: LinuxResources =
                serde_json::from_value(json!({ "devices": devices }))
                    .map_err(|error| self.failed("limiting")(error.to_string()))?;
            self.manager
                .apply(&ControllerOpt {
                    resources: &resources,
                    disable_oom_killer: false,
                    oom_score_adj: None,
                    freezer_state: None,
                })
                .map_err(|error| self.failed("limiting")(error.to_string()))?;
        }
        self.update(limits)
    }

    /// Other limits for a group that has some. Answers what this host can't do.
    pub fn update(&self, limits: &Limits) -> Result<Vec<String>> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let missing = limits::missing_cpus(limits, &online);
        if !online.is_empty() && !missing.is_empty() {
            let list: Vec<_> = missing.iter().map(u32::to_string).collect();
            return Err(CgroupError::Processors(list.join(", ")));
        }
        let writes = limits::writes(limits, self.mode, limits::block_device)?;
        limits::apply(&writes, |controller| self.directory(controller))
    }

    /// Whether the kernel killed something in it for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        limits::oom_kills(self.mode, &self.directory("memory")) > 0
    }

    /// Where a controller's files are.
    fn directory(&self, controller: &str) -> PathBuf {
        let root = Path::new("/sys/fs/cgroup");
        match self.mode {
            CgroupMode::V2 => root.join(&self.path),
            CgroupMode::V1 | CgroupMode::Hybrid => v1_mount(controller)
                .unwrap_or_else(|| root.join(controller))
                .join(&self.path),
        }
    }

    /// Leaves so many percent of what its limits, or this host's processors, allow; None: all.
    pub fn throttle(&self, limits: &Limits, percent: Option<u32>) -> Result<()> {
        let resources: LinuxResources = serde_json::from_value(cpu(limits, percent))
            .map_err(|error| self.failed("throttling")(error.to_string()))?;
        self.manager
            .apply(&ControllerOpt {
                resources: &resources,
                disable_oom_killer: false,
                oom_score_adj: None,
                freezer_state: None,
            })
            .map_err(|error| self.failed("throttling")(error.to_string()))
    }

    fn freezer(&self) -> Result<&Path> {
        self.v2.as_deref().ok_or_else(|| CgroupError::NoFreezer {
            group: self.path.clone(),
        })
    }

    /// Asks the kernel to freeze; returns when it is noted. Tasks that CRIU holds stopped stay
    /// stopped, and never run again before [`thaw`](Self::thaw), whoever lets go of them.
    pub fn freeze(&self) -> Result<()> {
        write(&self.freezer()?.join("cgroup.freeze"), "1")
    }

    pub fn thaw(&self) -> Result<()> {
        match write(&self.freezer()?.join("cgroup.freeze"), "0") {
            // The group is gone, and with it whatever was frozen.
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }

    /// Waits until every task stands still after [`freeze`](Self::freeze).
    pub fn settle(&self) -> Result<()> {
        let events = self.freezer()?.join("cgroup.events");
        let deadline = Instant::now() + PATIENCE;
        while !read(&events)?.lines().any(|line| line == "frozen 1") {
            if Instant::now() > deadline {
                return Err(CgroupError::Timeout {
                    group: self.path.clone(),
                    step: "freeze",
                });
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether `freeze` was asked for and not taken back.
    pub fn is_frozen(&self) -> bool {
        self.freezer()
            .and_then(|dir| read(&dir.join("cgroup.freeze")))
            .is_ok_and(|text| text.trim() == "1")
    }

    /// Every process in it, in no order.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let Some(dir) = &self.v2 else {
            return self
                .manager
                .get_all_pids()
                .map(|pids| pids.into_iter().map(ManagerPid::as_raw).collect())
                .map_err(|error| self.failed("listing")(error.to_string()));
        };
        match read(&dir.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(CgroupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Kills everything in it, frozen or not, and waits until it is empty.
    pub fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(dir) = &self.v2 {
                // Kernels before 5.14 lack `cgroup.kill`: the signals below do it, too.
                let _ = write(&dir.join("cgroup.kill"), "1");
                // On a hybrid host frozen tasks die only after a thaw.
                let _ = write(&dir.join("cgroup.freeze"), "0");
            }
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::SIGKILL);
            }
            if Instant::now() > deadline {
                return Err(CgroupError::Timeout {
                    group: self.path.clone(),
                    step: "die",
                });
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Removes the empty group everywhere. Nothing there is fine.
    pub fn remove(&self) -> Result<()> {
        let managed = self
            .manager
            .remove()
            .map_err(|error| self.failed("removing")(error.to_string()));
        if let (CgroupMode::Hybrid, Some(dir)) = (self.mode, &self.v2) {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(CgroupError::File {
                        path: dir.clone(),
                        source,
                    });
                }
            }
        }
        managed
    }
}

/// Removes the group that was the parent of containers' groups, if it is empty now.
pub fn remove_parent(path: &str) {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (_, Some(at), Some("cgroup" | "cgroup2")) =
            (fields.next(), fields.next(), fields.next())
        {
            // Not empty, or never made: both are fine.
            let _ = fs::remove_dir(Path::new(at).join(path));
        }
    }
}

/// The share of processors alone.
fn cpu(limits: &Limits, percent: Option<u32>) -> serde_json::Value {
    let whole = limits.cpus.map(|cpus| i64::from(cpus.0) * 100);
    let host = || thread::available_parallelism().map_or(1, |count| count.get() as i64) * 100_000;
    let quota = match percent {
        Some(percent) => whole.unwrap_or_else(host) * i64::from(percent) / 100,
        None => whole.unwrap_or(-1),
    };
    json!({ "cpu": { "period": 100_000, "quota": quota } })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| CgroupError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CgroupError::File {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::Cpus;

    #[test]
    fn a_throttle_leaves_a_share_of_the_limit() {
        let limits = Limits {
            cpus: Some(Cpus(1500)),
            ..Limits::default()
        };
        assert_eq!(cpu(&limits, Some(20))["cpu"]["quota"], 30_000);
        assert_eq!(cpu(&limits, None)["cpu"]["quota"], 150_000);
        assert_eq!(cpu(&Limits::default(), None)["cpu"]["quota"], -1);
    }
}
