//! Run, stop, remove.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use godwit_types::{ContainerId, ContainerSpec, Exit, InstanceState, NetworkMode};
use tokio::{process::Command, time::timeout};

use super::{Result, Runtime, RuntimeError, blocking, state::word, sysctl, volumes};
use crate::{
    cgroup::Group,
    container::{
        Bundle, BundleError, CommandError, INIT, InstancePaths, devices, host_mounts, init_path,
        remove_images, remove_tree, resolve_command, resolve_user, write_atomic,
    },
    criu::Bind,
    network::{Gate, link_name},
    rootfs::Rootfs,
    shim::{
        kept,
        protocol::{Config as ShimConfig, Request, feed},
    },
};

/// What a shim is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    New,
    /// The container of a shim that is gone.
    Adopt,
}

impl Runtime {
    /// Creates and starts. Leaves nothing when it fails. Answers the pid.
    pub async fn run(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<i32> {
        match self.state(id).await {
            // Done before; the answer was lost.
            Ok(InstanceState::Running { pid }) => return Ok(pid),
            Err(RuntimeError::NotFound(_)) => {}
            // What an attempt left that did not get so far.
            _ => self.remove(id, true).await?,
        }
        let made = self.make_and_start(id, spec).await;
        if made.is_err()
            && let Err(error) = self.remove(id, true).await
        {
            tracing::warn!(container = id.short(), %error, "failed start left something behind");
        }
        made
    }

    pub(super) async fn make_and_start(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
    ) -> Result<i32> {
        self.check_binds(spec)?;
        let paths = self.paths(id);
        let image = {
            // From when it is looked up until the container is written down as using it.
            let _using = self.images().using();
            let image = self.image_of(spec)?;
            self.make_directory(&paths, spec)?;
            image
        };
        self.reserve_ports(id, spec).await?;
        let netns = self.attach(id, spec, Gate::Open).await?;
        self.publish(id, spec).await?;
        let rootfs = Rootfs::new(&paths.rootfs());
        let (shim, config) = (paths.clone(), self.shim_config(id, spec, netns.clone())?);
        let init = init_path(&self.inner.config.data);
        let (id_, spec_, cgroup) = (id.clone(), spec.clone(), self.cgroup(id));
        let volumes = self.inner.volumes.clone();
        let other = match &spec.options.ports.mode {
            NetworkMode::Container { container, .. } => Some(self.paths(container).etc()),
            NetworkMode::Own | NetworkMode::Host => None,
        };
        blocking(move || {
            if !rootfs.is_mounted() {
                rootfs.mount(&image.layers)?;
            }
            let root = rootfs.merged();
            volumes::make(&spec_, &root, &volumes)?;
            let process = &spec_.options.process;
            let user = match process.user.as_str() {
                "" => &image.config.user,
                user => user,
            };
            let user = resolve_user(&root, user)?;
            let bundle = Bundle {
                id: &id_,
                spec: &spec_,
                image: &image.config,
                user: &user,
                root: &root,
                netns: &netns,
                etc: &shim.etc(),
                cgroup: &cgroup,
                volumes: &volumes,
                init: &init,
            };
            make_working_dir(&root, bundle.working_dir())?;
            let arguments = bundle.arguments();
            let command = arguments.first().map_or("", String::as_str);
            resolve_command(
                &root,
                command,
                &bundle.path_variable(),
                bundle.working_dir(),
            )
            .map_err(|error| match error {
                CommandError::Empty => RuntimeError::NoCommand(spec_.image.to_string()),
                CommandError::NotFound(command) => RuntimeError::CommandNotFound(command),
                CommandError::NotExecutable(command, reason) => {
                    RuntimeError::CommandNotExecutable { command, reason }
                }
            })?;
            write_bundle(&shim, &bundle)?;
            if let Some(other) = other {
                share_names(&other, &shim.etc())?;
            }
            write_atomic(&shim.shim_config(), &config).map_err(|source| RuntimeError::Io {
                path: shim.shim_config(),
                source,
            })
        })
        .await?;
        self.start_shim(&paths, Start::New).await?;
        self.shim(id).ask(Request::Create).await?;
        match self.state(id).await? {
            InstanceState::Running { pid } => Ok(pid),
            // So short a program is a success, too; its state tells the rest.
            InstanceState::Exited { .. } => Ok(0),
            other => Err(self.wrong_state(id, &other, "running")),
        }
    }

    pub(super) fn make_directory(&self, paths: &InstancePaths, spec: &ContainerSpec) -> Result<()> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RuntimeError::Io { path, source }
        };
        for dir in [&paths.dir, &paths.bundle(), &paths.etc(), &paths.rootfs()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .map_err(io(dir))?;
        }
        write_atomic(&paths.spec(), spec).map_err(io(&paths.spec()))
    }

    pub(super) async fn attach(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        gate: Gate,
    ) -> Result<PathBuf> {
        let networks = self.networks();
        match &spec.options.ports.mode {
            NetworkMode::Own => {}
            NetworkMode::Host => return Ok(PathBuf::from("/proc/self/ns/net")),
            NetworkMode::Container { container, .. } => {
                return Ok(networks.namespace_of(container)?);
            }
        }
        let netns = match &spec.network {
            Some(attachment) => {
                networks.ensure(&attachment.network).await?;
                let resolvers = &spec.options.ports.dns;
                networks.give_resolvers(attachment, resolvers).await;
                networks.attach(id, attachment, gate).await?
            }
            None => networks.attach_none(id).await?,
        };
        let (at, options) = (netns.clone(), spec.options.process.clone());
        // A checkpoint does not hold them: the namespace is made anew on every host.
        blocking(move || sysctl::set(&at, &options.sysctls)).await?;
        Ok(netns)
    }

    pub(super) fn shim_config(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        netns: PathBuf,
    ) -> Result<ShimConfig> {
        let paths = self.paths(id);
        let process = &spec.options.process;
        let devices =
            devices(process).map_err(|(device, source)| BundleError::Device { device, source })?;
        let init = process.init.then(|| Bind {
            destination: INIT.to_owned(),
            source: init_path(&self.inner.config.data).display().to_string(),
        });
        Ok(ShimConfig {
            id: id.as_str().to_owned(),
            root: Rootfs::new(&paths.rootfs()).merged(),
            dir: paths.dir,
            socket: paths.socket,
            cgroup: self.cgroup(id),
            netns,
            gate: spec.network.as_ref().map(|_| link_name(id)),
            criu: self.program(),
            mounts: host_mounts(spec, &self.inner.volumes),
            limits: spec.limits.clone(),
            devices: devices.rules,
            binds: init.into_iter().collect(),
            terminal: spec.options.terminal.clone(),
        })
    }

    /// Starts the shim; when this returns it listens.
    pub(super) async fn start_shim(&self, paths: &InstancePaths, start: Start) -> Result<()> {
        let log = paths.shim_log();
        let io = |source| RuntimeError::Io {
            path: log.clone(),
            source,
        };
        let output = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .map_err(io)?;
        let mode = match start {
            Start::New => None,
            Start::Adopt => Some("--adopt"),
        };
        let status = Command::new(&self.inner.config.shim)
            .args(mode)
            .arg(paths.shim_config())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .await
            .map_err(|source| RuntimeError::Io {
                path: self.inner.config.shim.clone(),
                source,
            })?;
        if status.success() {
            return Ok(());
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        Err(RuntimeError::ShimStart {
            log,
            said: said.lines().last().unwrap_or("").to_owned(),
        })
    }

    /// The image's stop signal, then SIGKILL after `grace`.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<Exit> {
        let running = match self.state(id).await? {
            InstanceState::Exited { exit } => return Ok(exit),
            running @ (InstanceState::Running { .. } | InstanceState::Paused { .. }) => running,
            other => return Err(self.wrong_state(id, &other, "running")),
        };
        let signal = self.stop_signal(id).number();
        for (signal, patience) in [
            (signal, grace),
            (nix::libc::SIGKILL, Duration::from_secs(10)),
        ] {
            // An error: it has ended meanwhile, which the wait below finds.
            let _ = self.ask(id, Request::Signal { signal }).await;
            // One that is paused must be able to end.
            self.set_frozen(id, false).await?;
            if let Ok(state) = timeout(patience, self.ended(id)).await {
                return match state? {
                    InstanceState::Exited { exit } => Ok(exit),
                    other => Err(self.wrong_state(id, &other, "exited")),
                };
            }
        }
        Err(self.wrong_state(id, &running, "exited, even after SIGKILL"))
    }

    /// Idempotent: an instance that is not there is removed. `force` kills what runs.
    pub async fn remove(&self, id: &ContainerId, force: bool) -> Result<()> {
        match self.state(id).await {
            Ok(InstanceState::Running { .. } | InstanceState::Paused { .. }) if !force => {
                return Err(RuntimeError::WrongState {
                    container: id.short().to_owned(),
                    state: "running".to_owned(),
                    wanted: "ended",
                });
            }
            Ok(InstanceState::Running { .. } | InstanceState::Paused { .. }) => {
                let _ = self.stop(id, Duration::ZERO).await?;
            }
            // Whatever a migration holds here is not wanted any more.
            Ok(InstanceState::Frozen { .. }) => drop(self.shim(id).ask(Request::Release).await),
            Ok(InstanceState::Staged { .. } | InstanceState::Created) => {
                drop(self.shim(id).ask(Request::Discard).await);
            }
            _ => {}
        }
        self.clear(id).await
    }

    /// Removes what an instance that does not run has left. Goes on after a failure and reports
    /// the first.
    pub(super) async fn clear(&self, id: &ContainerId) -> Result<()> {
        let paths = self.paths(id);
        drop(self.holds().remove(id));
        let unpublished = self.unpublish(id).await;
        let network = self.networks().detach(id).await.map_err(RuntimeError::from);
        let cgroup = self.cgroup(id);
        let disk = blocking(move || {
            // Tasks that lost their shim are in no one's hands but the cgroup's.
            let group = Group::new(&cgroup).and_then(|group| {
                group.kill()?;
                group.remove()
            });
            let rootfs = Rootfs::new(&paths.rootfs()).remove();
            let feed = feed(&paths.socket);
            for socket in [
                kept::path(&paths.socket),
                kept::paged(&feed),
                feed,
                paths.socket.clone(),
                kept::lock(&paths.socket),
            ] {
                match fs::remove_file(&socket) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(RuntimeError::Io {
                            path: socket,
                            source,
                        });
                    }
                    _ => {}
                }
            }
            rootfs?;
            group?;
            for moving in [paths.checkpoint(), paths.incoming()] {
                remove_images(&moving.join("criu")).map_err(|source| RuntimeError::Io {
                    path: moving,
                    source,
                })?;
            }
            remove_tree(&paths.dir).map_err(|source| RuntimeError::Io {
                path: paths.dir.clone(),
                source,
            })
        })
        .await;
        unpublished.and(network).and(disk)
    }

    pub(crate) fn spec(&self, id: &ContainerId) -> Result<ContainerSpec> {
        let path = self.paths(id).spec();
        let text = fs::read(&path).map_err(|source| RuntimeError::Io {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| RuntimeError::Stored { path, source })
    }

    pub(crate) fn wrong_state(
        &self,
        id: &ContainerId,
        state: &InstanceState,
        wanted: &'static str,
    ) -> RuntimeError {
        RuntimeError::WrongState {
            container: id.short().to_owned(),
            state: word(state),
            wanted,
        }
    }
}

/// Made where it is missing, as Docker does.
fn make_working_dir(root: &Path, dir: &str) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let made = pathrs::Root::open(root).and_then(|root| root.mkdir_all(dir, &mode).map(drop));
    // It may be a link that leads nowhere, or a file: then the container's start says so.
    if let Err(error) = made {
        tracing::debug!(%error, dir, "working directory not made");
    }
    Ok(())
}

fn write_bundle(paths: &InstancePaths, bundle: &Bundle<'_>) -> Result<()> {
    let config = paths.bundle().join("config.json");
    let (text, warnings) = bundle.config()?;
    let lines: String = warnings.iter().map(|line| format!("{line}\n")).collect();
    fs::write(paths.warnings(), lines).map_err(|source| RuntimeError::Io {
        path: paths.warnings(),
        source,
    })?;
    fs::write(&config, text.to_string()).map_err(|source| RuntimeError::Io {
        path: config,
        source,
    })?;
    for (name, text) in bundle.etc_files() {
        let path = paths.etc().join(name);
        fs::write(&path, text).map_err(|source| RuntimeError::Io { path, source })?;
    }
    Ok(())
}

/// Who has another's network finds what that one finds.
fn share_names(other: &Path, etc: &Path) -> Result<()> {
    for name in ["hosts", "resolv.conf"] {
        let path = etc.join(name);
        match fs::copy(other.join(name), &path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(RuntimeError::Io { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}
