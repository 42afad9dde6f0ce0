//! How a container's first process runs, and what it may.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{HealthOptions, OptionProblem, sysctl};
use crate::{ByteSize, Signal};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessOptions {
    /// None: the image's. Empty: none. Given, the image's own command is not used.
    pub entrypoint: Option<Vec<String>>,
    /// Empty: the image's.
    pub working_dir: String,
    /// `user[:group]`; empty: the image's.
    pub user: String,
    /// Empty: the first twelve digits of the id.
    pub hostname: String,
    /// A reaper as the first process.
    pub init: bool,
    /// All capabilities and devices, nothing masked, no system call filter.
    pub privileged: bool,
    /// `CAP_NET_ADMIN`, `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    /// The root file system can't be written to.
    pub read_only: bool,
    pub tmpfs: Vec<Tmpfs>,
    /// Of `/dev/shm`; None: 64 MiB.
    pub shm_size: Option<ByteSize>,
    /// By their names in lower case without `RLIMIT_`: `nofile`.
    pub ulimits: BTreeMap<String, Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    /// None: the image's, else SIGTERM.
    pub stop_signal: Option<Signal>,
    /// Seconds after the stop signal before SIGKILL; None: 10.
    pub stop_timeout: Option<u32>,
    /// None: the image's.
    pub health: Option<HealthOptions>,
}

/// Which system calls are filtered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// Docker's.
    #[default]
    Default,
    Unconfined,
    /// A profile in Docker's form, as JSON text.
    Profile(String),
}

/// `PATH[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    pub path: String,
    /// As mount takes them.
    pub options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = OptionProblem;
    fn from_str(text: &str) -> Result<Self, OptionProblem> {
        let refuse = |takes: &str| OptionProblem::new("--tmpfs", text, takes);
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if !is_inner_path(path) {
            return Err(refuse(
                "an absolute path inside the container, and mount options",
            ));
        }
        let options: Vec<String> = options
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        const KNOWN: [&str; 14] = [
            "rw",
            "ro",
            "exec",
            "noexec",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "sync",
            "async",
            "atime",
            "noatime",
            "diratime",
            "nodiratime",
        ];
        const VALUED: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
        for option in &options {
            let good = match option.split_once('=') {
                None => KNOWN.contains(&option.as_str()),
                Some((key, value)) => {
                    VALUED.contains(&key)
                        && !value.is_empty()
                        && value
                            .bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b == b'%')
                }
            };
            if !good {
                return Err(refuse(&format!(
                    "mount options such as `size=64m,noexec`, not `{option}`"
                )));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            options,
        })
    }
}

/// Absolute, without a way up, not the root itself, no control characters.
pub(crate) fn is_inner_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 4096
        && !path.trim_matches('/').is_empty()
        && !path.split('/').any(|part| part == "..")
        && !path.chars().any(char::is_control)
}

/// `NAME=SOFT[:HARD]`; None: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// The names that the kernel has.
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// The name and the bounds.
pub fn parse_ulimit(text: &str) -> Result<(String, Ulimit), OptionProblem> {
    let refuse = |takes: &str| OptionProblem::new("--ulimit", text, takes);
    let (name, bounds) = text
        .split_once('=')
        .ok_or_else(|| refuse("NAME=SOFT[:HARD]"))?;
    if !ULIMITS.contains(&name) {
        return Err(refuse(&format!("one of {}", ULIMITS.join(", "))));
    }
    let bound = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| refuse("a number, or -1 for no limit")),
    };
    let (soft, hard) = bounds.split_once(':').unwrap_or((bounds, bounds));
    let ulimit = Ulimit {
        soft: bound(soft)?,
        hard: bound(hard)?,
    };
    let above = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if above(ulimit.soft) > above(ulimit.hard) {
        return Err(refuse("a soft limit that is not above the hard one"));
    }
    Ok((name.to_owned(), ulimit))
}

/// `HOST[:CONTAINER][:rwm]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub host: String,
    pub container: String,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

impl FromStr for Device {
    type Err = OptionProblem;
    fn from_str(text: &str) -> Result<Self, OptionProblem> {
        let parts: Vec<&str> = text.split(':').collect();
        let is_access = |text: &str| {
            (1..=3).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
        };
        let (host, container, access) = match parts[..] {
            [host] => (host, host, "rwm"),
            [host, second] if is_access(second) => (host, host, second),
            [host, second] => (host, second, "rwm"),
            [host, second, third] if is_access(third) => (host, second, third),
            _ => ("", "", ""),
        };
        let inside =
            |path: &str| is_inner_path(path) && path.len() > 5 && path.starts_with("/dev/");
        if !inside(host) || !inside(container) {
            return Err(OptionProblem::new(
                "--device",
                text,
                "/dev/HOST[:/dev/CONTAINER][:rwm]",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            container: container.to_owned(),
            access: access.to_owned(),
        })
    }
}

/// The kernel's name of a capability as people type it: `net_admin`, `CAP_NET_ADMIN`; `ALL` stays.
pub fn capability(text: &str) -> Result<String, OptionProblem> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" {
        return Ok(upper);
    }
    let name = format!("CAP_{}", upper.strip_prefix("CAP_").unwrap_or(&upper));
    if CAPABILITIES.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(OptionProblem::new(
            "--cap-add or --cap-drop",
            text,
            "a capability such as NET_ADMIN, or ALL",
        ))
    }
}

/// Every capability there is, by number.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

impl ProcessOptions {
    /// What is not valid or contradicts itself, whoever made it.
    pub fn check(&self) -> Result<(), OptionProblem> {
        for name in self.cap_add.iter().chain(&self.cap_drop) {
            capability(name)?;
        }
        for (name, value) in &self.sysctls {
            sysctl::check(name, value)?;
        }
        for tmpfs in &self.tmpfs {
            format!("{}:{}", tmpfs.path, tmpfs.options.join(",")).parse::<Tmpfs>()?;
        }
        for device in &self.devices {
            format!("{}:{}:{}", device.host, device.container, device.access).parse::<Device>()?;
        }
        if let Some(name) = self
            .ulimits
            .keys()
            .find(|name| !ULIMITS.contains(&name.as_str()))
        {
            return Err(OptionProblem::new("--ulimit", name, "a limit's name"));
        }
        if !self.hostname.is_empty() && !is_hostname(&self.hostname) {
            return Err(OptionProblem::new(
                "--hostname",
                &self.hostname,
                "letters, digits, `-` and `.`, at most 63",
            ));
        }
        if !self.working_dir.is_empty()
            && (!self.working_dir.starts_with('/') || has_control(&self.working_dir))
        {
            return Err(OptionProblem::new(
                "--workdir",
                &self.working_dir,
                "an absolute path inside the container",
            ));
        }
        if has_control(&self.user) || self.user.len() > 256 {
            return Err(OptionProblem::new(
                "--user",
                &self.user,
                "USER[:GROUP], names or numbers",
            ));
        }
        if self.privileged && matches!(self.seccomp, Seccomp::Profile(_)) {
            return Err(OptionProblem::new(
                "--privileged",
                "--security-opt seccomp",
                "one of the two: a privileged container has no system call filter",
            ));
        }
        self.health.as_ref().map_or(Ok(()), HealthOptions::check)
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !text.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_or_lack_their_prefix() {
        for text in ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(capability(text).unwrap(), "CAP_NET_ADMIN");
        }
        assert_eq!(capability("all").unwrap(), "ALL");
        assert!(capability("FLY").is_err());
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_bound() {
        let (name, limit) = parse_ulimit("nofile=10:20").unwrap();
        assert_eq!(
            (name.as_str(), limit.soft, limit.hard),
            ("nofile", Some(10), Some(20))
        );
        assert_eq!(parse_ulimit("core=-1").unwrap().1.hard, None);
        for bad in [
            "nofile",
            "nofile=",
            "files=1",
            "nofile=2:1",
            "nofile=-1:5",
            "nofile=x",
        ] {
            assert!(parse_ulimit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_device_has_two_paths_and_an_access() {
        let device: Device = "/dev/null:/dev/x:r".parse().unwrap();
        assert_eq!(
            (device.container.as_str(), device.access.as_str()),
            ("/dev/x", "r")
        );
        assert_eq!("/dev/null:rw".parse::<Device>().unwrap().access, "rw");
        for bad in [
            "null",
            "/etc/passwd",
            "/dev/../etc/x",
            "/dev/null:/x",
            "/dev/a:/dev/b:rx",
            "/dev/",
        ] {
            assert!(bad.parse::<Device>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tmpfs_takes_no_option_that_is_not_its_own() {
        let tmpfs: Tmpfs = "/run:size=64m,noexec".parse().unwrap();
        assert_eq!(tmpfs.options, ["size=64m", "noexec"]);
        for bad in [
            "/",
            "run",
            "/a/../b",
            "/run:bind",
            "/run:size=",
            "/run:upperdir=/x",
        ] {
            assert!(bad.parse::<Tmpfs>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_carry_no_control_characters() {
        let with = |hostname: &str| ProcessOptions {
            hostname: hostname.to_owned(),
            ..ProcessOptions::default()
        };
        assert!(with("web-1.example").check().is_ok());
        for bad in ["a b", "a\nb", "-a", &"x".repeat(64)] {
            assert!(with(bad).check().is_err(), "{bad:?}");
        }
    }
}
