//! One host's containers, by id: what the agent calls.
//!
//! The state of an instance is on disk and in its shim, never in this process alone, so a new
//! `Runtime` over the same directories finds everything again. Calls for one container are made
//! one at a time (the agent has one task per container); calls for different ones at will.

mod adopt;
mod author;
mod error;
mod images;
mod layer;
mod lifecycle;
mod look;
mod mapped;
mod migrate_in;
mod migrate_out;
mod orders;
mod ports;
mod state;
mod sysctl;
mod volumes;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

pub use author::Interrupt;
pub use error::RuntimeError;
use godwit_types::{ByteSize, ContainerId, ContainerSpec, HostFacts};
pub use layer::{LAYER, LayerPart, Moving, VOLUME};

use crate::{
    cgroup,
    container::InstancePaths,
    criu::{self, Program},
    image, memory,
    network::{Hold, Networks},
    shim::Client,
    volume::Volumes,
};

pub(crate) type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// Where things are on this host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data root: images, layers, containers. Survives a reboot.
    pub data: PathBuf,
    /// Sockets and network namespaces. Gone after a reboot.
    pub run: PathBuf,
    /// The cgroup below which every container gets its own, such as `godwit`.
    pub cgroup: String,
    /// This host's address for VXLAN.
    pub underlay: std::net::Ipv4Addr,
    pub criu: PathBuf,
    /// The library preloaded into CRIU; None: none.
    pub interpose: Option<PathBuf>,
    /// The `godwit-shim` program.
    pub shim: PathBuf,
    /// What arriving containers leave for others.
    pub reserve: memory::Reserve,
    /// How writes to memory may be tracked.
    pub tracking: memory::Wanted,
}

/// See the module.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    /// First the configuration's; it may change.
    reserve: Mutex<memory::Reserve>,
    images: image::Store,
    networks: Networks,
    pub(crate) volumes: Volumes,
    facts: HostFacts,
    /// How writes are tracked, or why memory can't be carried.
    carried_by: std::result::Result<memory::Method, String>,
    /// What comes for containers that are frozen.
    holds: Mutex<HashMap<ContainerId, Hold>>,
    /// One container is taken up at a time, and by one alone.
    adopting: tokio::sync::Mutex<()>,
}

impl Runtime {
    /// Makes the directories, opens the stores and asks CRIU whether it can work here.
    pub async fn open(config: Config) -> Result<Self> {
        let dirs = [
            // Others may go through it, to a socket that is for them; not look into it.
            (config.run.clone(), 0o711),
            (config.run.join("shims"), 0o700),
            (config.data.join("containers"), 0o700),
        ];
        for (dir, mode) in dirs {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&dir)
                .map_err(|source| RuntimeError::Io { path: dir, source })?;
        }
        crate::container::install_init(&config.data).map_err(|source| RuntimeError::Io {
            path: crate::container::init_path(&config.data),
            source,
        })?;
        let check = config.data.join("check");
        blocking(move || Ok(crate::rootfs::check(&check)?)).await?;
        let images = image::Store::open(&config.data.join("images"))?;
        let networks = Networks::open(config.underlay, &config.run).await?;
        let volumes = Volumes::new(&config.data);
        let mut facts = facts(&config).await?;
        let carried_by = match (&config.interpose, config.tracking.choose()) {
            (_, Err(problem)) => Err(problem),
            (None, _) => Err("`libgodwit_interpose.so` is not beside the agent".to_owned()),
            (Some(_), Ok(method)) => Ok(method),
        };
        match &carried_by {
            Ok(memory::Method::Userfaultfd) => {}
            Ok(memory::Method::SoftDirty) => facts.warnings.push(
                "memory is tracked by soft-dirty bits: a container stops for a moment in each \
                 round of a move"
                    .to_owned(),
            ),
            Err(problem) => {
                let text = format!("memory is moved in the freeze only: {problem}");
                facts.warnings.push(text);
                facts.precopy_problem = Some(problem.clone());
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                reserve: Mutex::new(config.reserve),
                config,
                images,
                networks,
                volumes,
                facts,
                carried_by,
                holds: Mutex::default(),
                adopting: tokio::sync::Mutex::default(),
            }),
        })
    }

    pub fn images(&self) -> &image::Store {
        &self.inner.images
    }

    pub fn networks(&self) -> &Networks {
        &self.inner.networks
    }

    /// Asked once at the start.
    pub async fn facts(&self) -> HostFacts {
        self.inner.facts.clone()
    }

    /// Free bytes under the data root.
    pub fn disk_free(&self) -> u64 {
        disk_free(&self.inner.config.data)
    }

    /// Bytes of memory that containers which arrive may take now.
    pub fn memory_free(&self) -> u64 {
        self.inner
            .reserve
            .lock()
            .expect("no holder panics")
            .leaves()
    }

    /// What arriving containers leave for others from now on.
    pub fn set_reserve(&self, reserve: memory::Reserve) {
        *self.inner.reserve.lock().expect("no holder panics") = reserve;
    }

    pub fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.paths(id).log()
    }

    pub(crate) fn paths(&self, id: &ContainerId) -> InstancePaths {
        InstancePaths::new(&self.inner.config.data, &self.inner.config.run, id)
    }

    pub(crate) fn shim(&self, id: &ContainerId) -> Client {
        Client::new(self.paths(id).socket)
    }

    /// The container's cgroup, below the hierarchies' roots.
    pub(crate) fn cgroup(&self, id: &ContainerId) -> String {
        format!("{}/{}", self.inner.config.cgroup, id.short())
    }

    fn program(&self) -> Program {
        Program {
            path: self.inner.config.criu.clone(),
            interpose: self.inner.config.interpose.clone(),
        }
    }

    pub(crate) fn image_of(&self, spec: &ContainerSpec) -> Result<image::Image> {
        self.inner
            .images
            .get(&spec.image_id)?
            .ok_or_else(|| RuntimeError::NoImage(format!("{} ({})", spec.image, spec.image_id)))
    }
}

fn disk_free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}

async fn facts(config: &Config) -> Result<HostFacts> {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let program = Program {
        path: config.criu.clone(),
        interpose: config.interpose.clone(),
    };
    let checked = blocking(move || Ok(criu::check(&program))).await?;
    let cgroups = cgroup::mode()?;
    let mut warnings = Vec::new();
    if cgroups == godwit_types::CgroupMode::V1 {
        warnings
            .push("no cgroup2 is mounted: containers can't be frozen, so they can't move".into());
    }
    if !holds_sys_resource() {
        warnings.push(
            "no CAP_SYS_RESOURCE: hard limits can't be raised, a container keeps this host's"
                .into(),
        );
    }
    let memory = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .unwrap_or(0);
    Ok(HostFacts {
        arch: text(uname.machine()),
        kernel: text(uname.release()),
        criu: checked.version,
        criu_problem: checked.problem,
        cgroups,
        cpu_flags: cpu_flags(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
        memory: ByteSize(memory * 1024),
        disk_free: ByteSize(disk_free(&config.data)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        precopy_problem: None,
        warnings,
    })
}

/// Of the first processor; `Features` is what arm64 calls them.
fn cpu_flags(cpuinfo: &str) -> BTreeSet<String> {
    let line = cpuinfo.lines().find_map(|line| {
        let (name, flags) = line.split_once(':')?;
        matches!(name.trim(), "flags" | "Features").then_some(flags)
    });
    let flags = line.unwrap_or_default().split_ascii_whitespace();
    flags.map(str::to_owned).collect()
}

fn holds_sys_resource() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities >> CAP_SYS_RESOURCE & 1 == 1)
}

/// Work that waits for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
