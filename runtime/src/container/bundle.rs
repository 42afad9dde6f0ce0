//! The OCI bundle of a container: pure, the same on every host but for its paths.

use std::path::Path;

use godwit_types::{
    ContainerId, ContainerSpec, Device, ImageConfig, NetworkMode, ProcessOptions, Seccomp,
};
use serde_json::{Value, json};

use super::{
    User, confine, etc, oci_mounts,
    seccomp::{self, SeccompError},
};
use crate::{criu::Bind, volume::Volumes};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files of /proc that say or do too much: `/dev/null` is bound over them.
pub const MASKED_FILES: [&str; 3] = ["/proc/kcore", "/proc/keys", "/proc/timer_list"];

const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Files that the host binds over the container's own.
const ETC: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// The bind mounts of a container whose files are in `etc`.
pub fn binds(etc: &Path) -> Vec<Bind> {
    ETC.iter()
        .map(|name| Bind {
            destination: format!("/etc/{name}"),
            source: etc.join(name).display().to_string(),
        })
        .collect()
}

/// Directories of /proc and /sys that say or do too much: empty ones are mounted over them.
pub const MASKED_DIRS: [&str; 4] = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"];

/// Where the reaper is, if it was asked for.
pub const INIT: &str = "/sbin/docker-init";

/// What keeps a bundle from being made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("device `{}`", .device.host)]
    Device {
        device: Device,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
}

/// What was asked for and this host can't do, a line each.
pub type Warnings = Vec<String>;

/// What goes into a bundle.
pub struct Bundle<'a> {
    pub id: &'a ContainerId,
    pub spec: &'a ContainerSpec,
    pub image: &'a ImageConfig,
    pub user: &'a User,
    /// The mounted root.
    pub root: &'a Path,
    pub netns: &'a Path,
    pub etc: &'a Path,
    /// Below the hierarchies' roots.
    pub cgroup: &'a str,
    pub volumes: &'a Volumes,
    /// The reaper on this host.
    pub init: &'a Path,
}

impl Bundle<'_> {
    /// Entry point and command, as Docker puts them together.
    pub fn arguments(&self) -> Vec<String> {
        let own = self.process().entrypoint.as_ref();
        // The image's command is an argument of its own entry point alone.
        let command = if self.spec.command.is_empty() && own.is_none() {
            &self.image.cmd
        } else {
            &self.spec.command
        };
        own.unwrap_or(&self.image.entrypoint)
            .iter()
            .chain(command)
            .cloned()
            .collect()
    }

    fn process(&self) -> &ProcessOptions {
        &self.spec.options.process
    }

    /// What is executed: the above, below the reaper if there is one.
    fn executed(&self) -> Vec<String> {
        let mut arguments = self.arguments();
        if self.process().init {
            arguments.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
        }
        arguments
    }

    /// The environment: the image's, then the user's over it.
    pub fn environment(&self) -> Vec<String> {
        let mut environment: Vec<String> = vec![DEFAULT_PATH.to_owned()];
        environment.push(format!("HOSTNAME={}", self.hostname()));
        if self.spec.options.terminal.tty {
            environment.push("TERM=xterm".to_owned());
        }
        if let Some(home) = &self.user.home {
            environment.push(format!("HOME={home}"));
        }
        for entry in self.image.env.iter().chain(&self.spec.env) {
            let key = entry.split('=').next().unwrap_or_default();
            environment.retain(|old| old.split('=').next() != Some(key));
            environment.push(entry.clone());
        }
        environment
    }

    pub fn path_variable(&self) -> String {
        self.environment()
            .into_iter()
            .find_map(|entry| entry.strip_prefix("PATH=").map(str::to_owned))
            .unwrap_or_default()
    }

    pub fn working_dir(&self) -> &str {
        let own = &self.process().working_dir;
        if !own.is_empty() {
            own
        } else if self.image.working_dir.is_empty() {
            "/"
        } else {
            &self.image.working_dir
        }
    }

    pub fn hostname(&self) -> &str {
        if self.spec.hostname.is_empty() {
            self.id.short()
        } else {
            &self.spec.hostname
        }
    }

    /// The files for [`binds`], by name.
    pub fn etc_files(&self) -> Vec<(&'static str, String)> {
        let host = etc::HostFiles::read();
        ETC.iter()
            .map(|name| {
                let text = match *name {
                    "hosts" => etc::hosts(self.spec, self.hostname(), &host),
                    "hostname" => format!("{}\n", self.hostname()),
                    _ => etc::resolv(self.spec, &host),
                };
                (*name, text)
            })
            .collect()
    }

    /// `config.json`.
    pub fn config(&self) -> Result<(Value, Warnings), BundleError> {
        let mut warnings = Warnings::new();
        let process = self.process();
        let shm = format!("size={}", process.shm_size.map_or(64 << 20, |size| size.0));
        let sys = if process.privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc",
                   "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                   "options": ["nosuid", "noexec", "nodev", sys]}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                   "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                   "options": ["nosuid", "noexec", "nodev", "mode=1777", shm]}),
        ];
        let storage = &self.spec.options.storage;
        for bind in binds(self.etc) {
            // The user's own takes its place.
            if storage
                .mounts
                .iter()
                .any(|m| m.destination == bind.destination)
            {
                continue;
            }
            mounts.push(json!({"destination": bind.destination, "type": "bind",
                "source": bind.source, "options": ["bind", "rprivate"]}));
        }
        mounts.extend(oci_mounts(self.spec, self.volumes));
        for tmpfs in &process.tmpfs {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            for option in &tmpfs.options {
                // The later word counts, as with Docker.
                let opposite = match option.strip_prefix("no") {
                    Some(rest) => rest.to_owned(),
                    None => format!("no{option}"),
                };
                options.retain(|old| *old != opposite && old != option);
                options.push(option.clone());
            }
            mounts.push(json!({"destination": tmpfs.path, "type": "tmpfs",
                "source": "tmpfs", "options": options}));
        }
        if process.init {
            mounts.push(json!({"destination": INIT, "type": "bind",
                "source": self.init, "options": ["bind", "ro", "rprivate"]}));
        }
        let mut capabilities = confine::capabilities(process);
        let lost = confine::keep_held(&mut capabilities, confine::held());
        if !lost.is_empty() {
            warnings.push(format!(
                "this host can't give {}: the container runs without",
                lost.join(", ")
            ));
        }
        let devices = confine::devices(process)
            .map_err(|(device, source)| BundleError::Device { device, source })?;
        let rlimits: Vec<Value> = process
            .ulimits
            .iter()
            .map(|(name, wanted)| {
                let may_raise = confine::held() >> 24 & 1 == 1;
                let (limit, cut) = confine::ulimit(*wanted, confine::own_hard(name), may_raise);
                if cut {
                    warnings.push(format!(
                        "`--ulimit {name}`: this host can't go beyond {}",
                        limit
                            .hard
                            .map_or("its own".to_owned(), |hard| hard.to_string())
                    ));
                }
                let number = |bound: Option<u64>| bound.unwrap_or(u64::MAX);
                json!({"type": format!("RLIMIT_{}", name.to_ascii_uppercase()),
                       "soft": number(limit.soft), "hard": number(limit.hard)})
            })
            .collect();
        let mut masked: Vec<&str> = MASKED_FILES.to_vec();
        masked.extend(MASKED_DIRS);
        let mut config = json!({
            "ociVersion": "1.0.2",
            "hostname": self.hostname(),
            "root": {"path": self.root, "readonly": process.read_only},
            "mounts": mounts,
            "process": {
                "terminal": self.spec.options.terminal.tty,
                "user": {"uid": self.user.uid, "gid": self.user.gid,
                         "additionalGids": self.user.groups},
                "args": self.executed(),
                "env": self.environment(),
                "cwd": self.working_dir(),
                "capabilities": self.capabilities(&capabilities),
                "rlimits": rlimits,
            },
            "linux": {
                "namespaces": self.namespaces(),
                "cgroupsPath": format!("/{}", self.cgroup),
                "resources": {"devices": devices.rules},
                "devices": devices.nodes,
            },
        });
        // Said only where it is so: with the word `false` the runtime would load the filter after the
        // capabilities are gone, which the kernel refuses.
        if process.no_new_privileges {
            config["process"]["noNewPrivileges"] = true.into();
        }
        if !process.privileged {
            config["linux"]["maskedPaths"] = json!(masked);
            config["linux"]["readonlyPaths"] = json!(READ_ONLY);
        }
        if let Some(score) = self.spec.limits.oom_score_adj {
            let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
            let own: i32 = own.trim().parse().unwrap_or(0);
            if score < own && confine::held() >> 24 & 1 == 0 {
                warnings.push(format!(
                    "`--oom-score-adj {score}`: this host can't go below {own}"
                ));
            } else {
                config["process"]["oomScoreAdj"] = score.into();
            }
        }
        let sysctls: std::collections::BTreeMap<_, _> = process
            .sysctls
            .iter()
            .filter(|(name, _)| !godwit_types::is_net_sysctl(name))
            .collect();
        if !sysctls.is_empty() {
            config["linux"]["sysctl"] = json!(sysctls);
        }
        let profile = match &process.seccomp {
            _ if process.privileged => None,
            Seccomp::Unconfined => None,
            Seccomp::Default => Some(None),
            Seccomp::Profile(text) => Some(Some(text.as_str())),
        };
        if let Some(profile) = profile {
            let kernel = rustix::system::uname();
            let container = seccomp::Container {
                capabilities: &capabilities,
                arch: std::env::consts::ARCH,
                kernel: &kernel.release().to_string_lossy(),
            };
            config["linux"]["seccomp"] = seccomp::filter(profile, &container)?;
        }
        Ok((config, warnings))
    }

    fn namespaces(&self) -> Value {
        let mut namespaces = vec![
            json!({"type": "pid"}),
            json!({"type": "mount"}),
            json!({"type": "ipc"}),
            json!({"type": "uts"}),
        ];
        if self.spec.options.ports.mode != NetworkMode::Host {
            namespaces.push(json!({"type": "network", "path": self.netns}));
        }
        json!(namespaces)
    }

    /// A user other than root has none but what its files give it, as with Docker.
    fn capabilities(&self, all: &[String]) -> Value {
        let held = if self.user.uid == 0 { all } else { &[] };
        json!({"bounding": all, "effective": held, "permitted": held, "inheritable": []})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::{ContainerName, Digest, ImageName, Limits};

    fn with_bundle(check: impl Fn(Bundle<'_>)) {
        let id = ContainerId::from_bytes([7; 32]);
        let spec = ContainerSpec {
            name: ContainerName::new("redis").unwrap(),
            image: "redis".parse::<ImageName>().unwrap(),
            image_id: Digest::from_sha256([1; 32]),
            command: vec![],
            env: vec!["A=2".into(), "B=3".into()],
            limits: Limits::default(),
            network: None,
            hostname: String::new(),
            options: godwit_types::Options::default(),
        };
        let image = ImageConfig {
            entrypoint: vec!["/run.sh".into()],
            cmd: vec!["serve".into()],
            env: vec!["PATH=/bin".into(), "A=1".into()],
            ..ImageConfig::default()
        };
        let user = User::default();
        check(Bundle {
            id: &id,
            spec: &spec,
            image: &image,
            user: &user,
            root: Path::new("/r"),
            netns: Path::new("/n"),
            etc: Path::new("/e"),
            cgroup: "godwit/x",
            volumes: &Volumes::new(Path::new("/d")),
            init: Path::new("/i"),
        });
    }

    #[test]
    fn the_image_and_the_user_are_put_together_as_docker_does() {
        with_bundle(|bundle| {
            assert_eq!(bundle.arguments(), ["/run.sh", "serve"]);
            assert_eq!(bundle.path_variable(), "/bin");
            let environment = bundle.environment();
            assert!(environment.contains(&"A=2".to_owned()));
            assert!(!environment.contains(&"A=1".to_owned()));
        });
    }

    #[test]
    fn the_bundle_is_a_valid_specification() {
        with_bundle(|bundle| {
            let spec: oci_spec::runtime::Spec =
                serde_json::from_value(bundle.config().unwrap().0).unwrap();
            assert_eq!(
                spec.linux()
                    .as_ref()
                    .unwrap()
                    .namespaces()
                    .as_ref()
                    .unwrap()
                    .len(),
                5
            );
        });
    }
}
