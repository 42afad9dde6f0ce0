//! The OCI bundle of a container: pure, the same on every host but for its paths.

use std::path::Path;

use godwit_types::{ContainerId, ContainerSpec, ImageConfig, NetworkMode};
use serde_json::{Value, json};

use super::{User, etc, oci_mounts};
use crate::{cgroup, criu::Bind, volume::Volumes};

/// Docker's default set.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

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
}

impl Bundle<'_> {
    /// Entry point and command, as Docker puts them together.
    pub fn arguments(&self) -> Vec<String> {
        let command = if self.spec.command.is_empty() {
            &self.image.cmd
        } else {
            &self.spec.command
        };
        self.image
            .entrypoint
            .iter()
            .chain(command)
            .cloned()
            .collect()
    }

    /// The environment: the image's, then the user's over it.
    pub fn environment(&self) -> Vec<String> {
        let mut environment: Vec<String> = vec![DEFAULT_PATH.to_owned()];
        environment.push(format!("HOSTNAME={}", self.hostname()));
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
        if self.image.working_dir.is_empty() {
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
    pub fn config(&self) -> Value {
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc",
                   "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                   "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
            json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                   "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
                   "options": ["nosuid", "noexec", "nodev", "ro"]}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                   "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                   "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
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
        json!({
            "ociVersion": "1.0.2",
            "hostname": self.hostname(),
            "root": {"path": self.root, "readonly": false},
            "mounts": mounts,
            "process": {
                "terminal": false,
                "user": {"uid": self.user.uid, "gid": self.user.gid,
                         "additionalGids": self.user.groups},
                "args": self.arguments(),
                "env": self.environment(),
                "cwd": self.working_dir(),
                "capabilities": self.capabilities(),
                "noNewPrivileges": false,
            },
            "linux": {
                "namespaces": self.namespaces(),
                "cgroupsPath": format!("/{}", self.cgroup),
                "resources": cgroup::resources(&self.spec.limits),
                "maskedPaths": MASKED_FILES,
                "readonlyPaths": READ_ONLY,
            },
        })
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
    fn capabilities(&self) -> Value {
        let all: &[&str] = &CAPABILITIES;
        let held: &[&str] = if self.user.uid == 0 { all } else { &[] };
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
            let spec: oci_spec::runtime::Spec = serde_json::from_value(bundle.config()).unwrap();
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
