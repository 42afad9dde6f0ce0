//! What a container's processes may: capabilities, devices, limits of a process. Pure but for the
//! questions to the host, which come in as arguments or stand apart.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use godwit_types::{CAPABILITIES, Device, ProcessOptions, Ulimit};
use serde_json::{Value, json};

/// Docker's default set.
const DEFAULT: [&str; 14] = [
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

/// The bounding set, as Docker makes it of what is added and dropped.
pub fn capabilities(options: &ProcessOptions) -> Vec<String> {
    let named = |list: &[String]| -> Vec<String> {
        list.iter()
            .filter_map(|name| godwit_types::capability(name).ok())
            .collect()
    };
    let (add, drop) = (named(&options.cap_add), named(&options.cap_drop));
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let base: &[&str] = if options.privileged || all(&add) {
        &CAPABILITIES
    } else if all(&drop) {
        &[]
    } else {
        &DEFAULT
    };
    let mut set: Vec<String> = base.iter().map(|name| (*name).to_owned()).collect();
    set.retain(|name| options.privileged || !drop.contains(name));
    for name in add {
        if name != "ALL" && !set.contains(&name) {
            set.push(name);
        }
    }
    set.sort();
    set
}

/// The capabilities that this host can give: the bounding set of the agent, as a mask.
pub fn held() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX)
}

/// Takes out what this host can't give. Answers that.
pub fn keep_held(set: &mut Vec<String>, held: u64) -> Vec<String> {
    let can = |name: &String| {
        let bit = CAPABILITIES.iter().position(|known| known == name);
        bit.is_some_and(|bit| held >> bit & 1 == 1)
    };
    let (kept, lost) = std::mem::take(set).into_iter().partition(can);
    *set = kept;
    lost
}

/// A device of this host: what the bundle and the rules need to know.
struct Node {
    kind: &'static str,
    major: u32,
    minor: u32,
    mode: u32,
    uid: u32,
    gid: u32,
}

fn node(path: &str) -> io::Result<Node> {
    let metadata = fs::metadata(path)?;
    let kind = if metadata.file_type().is_char_device() {
        "c"
    } else if metadata.file_type().is_block_device() {
        "b"
    } else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a device",
        ));
    };
    Ok(Node {
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// Devices as the bundle lists them, and which may be used. An error names the device.
pub struct Devices {
    pub nodes: Value,
    /// Of the cgroup: what is not allowed here or by default is denied.
    pub rules: Value,
}

pub fn devices(options: &ProcessOptions) -> Result<Devices, (Device, io::Error)> {
    if options.privileged {
        return Ok(Devices {
            nodes: json!([]),
            rules: json!([{"allow": true, "access": "rwm"}]),
        });
    }
    let mut nodes = Vec::new();
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    for device in &options.devices {
        let found = node(&device.host).map_err(|error| (device.clone(), error))?;
        nodes.push(json!({
            "path": device.container, "type": found.kind,
            "major": found.major, "minor": found.minor,
            "fileMode": found.mode, "uid": found.uid, "gid": found.gid,
        }));
        rules.push(json!({
            "allow": true, "type": found.kind,
            "major": found.major, "minor": found.minor, "access": device.access,
        }));
    }
    Ok(Devices {
        nodes: nodes.into(),
        rules: rules.into(),
    })
}

/// One limit as the kernel takes it, no higher than this process may go. The second: it was cut.
pub fn ulimit(wanted: Ulimit, own_hard: Option<u64>, may_raise: bool) -> (Ulimit, bool) {
    let bound = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if may_raise || bound(wanted.hard) <= bound(own_hard) {
        return (wanted, false);
    }
    let soft = if bound(wanted.soft) > bound(own_hard) {
        own_hard
    } else {
        wanted.soft
    };
    let cut = Ulimit {
        soft,
        hard: own_hard,
    };
    (cut, true)
}

/// This process's own hard limit of that name; None: none.
pub fn own_hard(name: &str) -> Option<u64> {
    const LABELS: [(&str, &str); 16] = [
        ("as", "Max address space"),
        ("core", "Max core file size"),
        ("cpu", "Max cpu time"),
        ("data", "Max data size"),
        ("fsize", "Max file size"),
        ("locks", "Max file locks"),
        ("memlock", "Max locked memory"),
        ("msgqueue", "Max msgqueue size"),
        ("nice", "Max nice priority"),
        ("nofile", "Max open files"),
        ("nproc", "Max processes"),
        ("rss", "Max resident set"),
        ("rtprio", "Max realtime priority"),
        ("rttime", "Max realtime timeout"),
        ("sigpending", "Max pending signals"),
        ("stack", "Max stack size"),
    ];
    let (_, label) = LABELS.iter().find(|(known, _)| *known == name)?;
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        capabilities(&ProcessOptions {
            cap_add: owned(add),
            cap_drop: owned(drop),
            ..ProcessOptions::default()
        })
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does_it() {
        assert_eq!(with(&[], &[]).len(), DEFAULT.len());
        assert_eq!(with(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(with(&[], &["ALL"]), [""; 0]);
        assert_eq!(
            with(&["ALL"], &["CAP_SYS_ADMIN"]).len(),
            CAPABILITIES.len() - 1
        );
        assert!(!with(&[], &["chown"]).contains(&"CAP_CHOWN".to_owned()));
    }

    #[test]
    fn what_the_host_lacks_is_taken_out_and_named() {
        let mut set = vec!["CAP_CHOWN".to_owned(), "CAP_SYS_RESOURCE".to_owned()];
        assert_eq!(keep_held(&mut set, 1), ["CAP_SYS_RESOURCE"]);
        assert_eq!(set, ["CAP_CHOWN"]);
    }

    #[test]
    fn limits_are_cut_where_they_can_not_be_raised() {
        let wanted = Ulimit {
            soft: Some(50),
            hard: None,
        };
        assert_eq!(ulimit(wanted, Some(10), true), (wanted, false));
        let ten = Ulimit {
            soft: Some(10),
            hard: Some(10),
        };
        assert_eq!(ulimit(wanted, Some(10), false), (ten, true));
        assert_eq!(ulimit(ten, Some(10), false), (ten, false));
    }

    #[test]
    fn a_device_must_be_one() {
        let with = |path: &str| {
            devices(&ProcessOptions {
                devices: vec![path.parse().unwrap()],
                ..ProcessOptions::default()
            })
        };
        let found = with("/dev/null:/dev/nothing:r").unwrap_or_else(|_| panic!());
        assert_eq!(found.nodes[0]["minor"], 3);
        assert_eq!(found.rules[1]["access"], "r");
        assert!(with("/dev/shm").is_err() && with("/dev/none-such").is_err());
    }
}
