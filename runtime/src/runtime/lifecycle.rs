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

use super::{Result, Runtime, RuntimeError, blocking, state::word, volumes};
use crate::{
    cgroup::Group,
    container::{
        Bundle, CommandError, InstancePaths, host_mounts, remove_images, remove_tree,
        resolve_command, resolve_user, write_atomic,
    },
    network::{Gate, link_name},
    rootfs::Rootfs,
    shim::protocol::{Config as ShimConfig, Request, feed},
};

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

    async fn make_and_start(&self, id: &ContainerId, spec: &ContainerSpec) -> Result<i32> {
        let image = self.image_of(spec)?;
        self.check_binds(spec)?;
        let paths = self.paths(id);
        self.make_directory(&paths, spec)?;
        self.reserve_ports(id, spec).await?;
        let netns = self.attach(id, spec, Gate::Open).await?;
        self.publish(id, spec).await?;
        let rootfs = Rootfs::new(&paths.rootfs());
        let (shim, config) = (paths.clone(), self.shim_config(id, spec, netns.clone()));
        let (id_, spec_, cgroup) = (id.clone(), spec.clone(), self.cgroup(id));
        let volumes = self.inner.volumes.clone();
        let other = match &spec.options.ports.mode {
            NetworkMode::Container { container, .. } => Some(self.paths(container).etc()),
            NetworkMode::Own | NetworkMode::Host => None,
        };
        blocking(move || {
            rootfs.mount(&image.layers)?;
            let root = rootfs.merged();
            volumes::make(&spec_, &root, &volumes)?;
            let user = resolve_user(&root, &image.config.user)?;
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
            };
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
        self.start_shim(&paths).await?;
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
        Ok(match &spec.network {
            Some(attachment) => {
                networks.ensure(&attachment.network).await?;
                let resolvers = &spec.options.ports.dns;
                networks.give_resolvers(attachment, resolvers).await;
                networks.attach(id, attachment, gate).await?
            }
            None => networks.attach_none(id).await?,
        })
    }

    pub(super) fn shim_config(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        netns: PathBuf,
    ) -> ShimConfig {
        let paths = self.paths(id);
        ShimConfig {
            id: id.as_str().to_owned(),
            root: Rootfs::new(&paths.rootfs()).merged(),
            dir: paths.dir,
            socket: paths.socket,
            cgroup: self.cgroup(id),
            netns,
            gate: spec.network.as_ref().map(|_| link_name(id)),
            criu: self.program(),
            limits: spec.limits,
            mounts: host_mounts(spec, &self.inner.volumes),
        }
    }

    /// Starts the shim; when this returns it listens.
    pub(super) async fn start_shim(&self, paths: &InstancePaths) -> Result<()> {
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
        let status = Command::new(&self.inner.config.shim)
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
            running @ InstanceState::Running { .. } => running,
            other => return Err(self.wrong_state(id, &other, "running")),
        };
        let signal = self
            .spec(id)
            .and_then(|spec| self.image_of(&spec))
            .map_or(nix::libc::SIGTERM, |image| {
                signal_number(&image.config.stop_signal)
            });
        for (signal, patience) in [
            (signal, grace),
            (nix::libc::SIGKILL, Duration::from_secs(10)),
        ] {
            // An error: it has ended meanwhile, which the wait below finds.
            let _ = self.shim(id).ask(Request::Signal { signal }).await;
            if let Ok(state) = timeout(patience, self.changed(id, &running)).await {
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
            Ok(InstanceState::Running { .. }) if !force => {
                return Err(RuntimeError::WrongState {
                    container: id.short().to_owned(),
                    state: "running".to_owned(),
                    wanted: "ended",
                });
            }
            Ok(InstanceState::Running { .. }) => drop(self.stop(id, Duration::ZERO).await?),
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
            for socket in [feed(&paths.socket), paths.socket.clone()] {
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

    pub(super) fn spec(&self, id: &ContainerId) -> Result<ContainerSpec> {
        let path = self.paths(id).spec();
        let text = fs::read(&path).map_err(|source| RuntimeError::Io {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| RuntimeError::Stored { path, source })
    }

    pub(super) fn wrong_state(
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

fn write_bundle(paths: &InstancePaths, bundle: &Bundle<'_>) -> Result<()> {
    let config = paths.bundle().join("config.json");
    fs::write(&config, bundle.config().to_string()).map_err(|source| RuntimeError::Io {
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

/// `SIGQUIT`, `QUIT` or `3`; anything else is SIGTERM.
fn signal_number(text: &str) -> i32 {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Ok(number @ 1..=64) = name.parse() {
        return number;
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map_or(nix::libc::SIGTERM, |signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_names_or_numbers() {
        for (text, number) in [
            ("", 15),
            ("SIGQUIT", 3),
            ("QUIT", 3),
            ("9", 9),
            ("nonsense", 15),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
