//! Descriptors that CRIU can't dump, found before anything is stopped: which process holds what.
//!
//! The decision is a pure function of what the kernel says of a descriptor; [`unmovable`] looks.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

/// More are counted, and not named.
const NAMED: usize = 3;

/// What the kernel says of a descriptor.
#[derive(Debug, Clone, Copy)]
struct Descriptor<'a> {
    /// What `/proc/PID/fd/N` leads to.
    target: &'a str,
    /// A character or block device.
    device: bool,
    /// Of a socket, as the kernel names its protocol.
    protocol: Option<&'a str>,
}

/// Why a container can't be moved: the descriptors that can't be, in words. None: nothing is known
/// against it.
pub fn unmovable(pids: &[i32]) -> Option<String> {
    let mut found = Vec::new();
    for pid in pids {
        // One that has ended meanwhile holds nothing.
        let entries = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in entries.into_iter().flatten().flatten() {
            if let Some(kind) = look(&entry.path()) {
                let number = entry.file_name();
                found.push((*pid, number.to_string_lossy().into_owned(), kind));
            }
        }
    }
    found.sort();
    let names = |pid: i32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim().to_owned()
    };
    say(&found, names)
}

fn say(found: &[(i32, String, String)], name: impl Fn(i32) -> String) -> Option<String> {
    let named = found.iter().take(NAMED).map(|(pid, number, kind)| {
        let name = name(*pid);
        format!(
            "process {pid} (`{}`) has {kind} on descriptor {number}",
            name.escape_debug()
        )
    });
    let mut text = named.collect::<Vec<_>>().join(", ");
    match found.len() {
        0 => return None,
        1 => text.push_str(", which can't be moved"),
        count if count <= NAMED => text.push_str(", which can't be moved: that is all of them"),
        count => {
            let more = count - NAMED;
            text.push_str(&format!(
                ", and there are {more} more, which can't be moved"
            ));
        }
    }
    Some(text)
}

fn look(path: &Path) -> Option<String> {
    // None: it was closed meanwhile.
    let target = fs::read_link(path).ok()?;
    let target = target.to_string_lossy();
    // Looking at what a link leads to opens nothing.
    let metadata = fs::metadata(path).ok()?;
    let kind = metadata.file_type();
    let protocol = kind.is_socket().then(|| protocol(path).ok()).flatten();
    decide(Descriptor {
        target: &target,
        device: (kind.is_char_device() || kind.is_block_device()) && metadata.rdev() != 0,
        protocol: protocol.as_deref(),
    })
}

/// The protocol of a socket, without a word to the socket or its owner.
fn protocol(path: &Path) -> io::Result<String> {
    let mut name = [0; 64];
    let length = rustix::fs::getxattr(path, "system.sockprotoname", &mut name)?;
    let name = name.get(..length).unwrap_or_default();
    let text = String::from_utf8_lossy(name);
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Kernel objects that CRIU knows.
const KNOWN: [&str; 7] = [
    "[eventfd]",
    "[eventpoll]",
    "[fanotify]",
    "[pidfd]",
    "[signalfd]",
    "[timerfd]",
    "inotify",
];

/// Devices that are the same on every host, and terminals.
const DEVICES: [&str; 9] = [
    "console", "full", "null", "ptmx", "random", "tty", "urandom", "zero", "pts/ptmx",
];

/// What it is, in words, if it can't be moved.
fn decide(descriptor: Descriptor<'_>) -> Option<String> {
    let Descriptor {
        target,
        device,
        protocol,
    } = descriptor;
    if let Some(name) = protocol {
        let name = name.trim_end_matches("v6");
        // TCP, UDP and so on are known; what is new to CRIU is new here.
        return matches!(
            name,
            "MPTCP" | "SCTP" | "SMC" | "AF_VSOCK" | "XDP" | "ALG" | "TIPC"
        )
        .then(|| format!("an `{name}` socket"));
    }
    if let Some(name) = target.strip_prefix("anon_inode:") {
        return match name {
            known if KNOWN.contains(&known) => None,
            "[io_uring]" => Some("an io_uring".into()),
            "[userfaultfd]" => Some("a userfaultfd".into()),
            "[perf_event]" => Some("a perf event".into()),
            bpf if bpf.starts_with("bpf") => Some("a BPF object".into()),
            kvm if kvm.starts_with("kvm") => Some("a virtual machine".into()),
            other => Some(format!("a `{}`", other.trim_matches(['[', ']']))),
        };
    }
    if target.starts_with("/secretmem") {
        return Some("secret memory".into());
    }
    let name = target.strip_prefix("/dev/").unwrap_or(target);
    let terminal = name
        .strip_prefix("pts/")
        .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    (device && !terminal && !DEVICES.contains(&name)).then(|| format!("the device `{target}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(target: &str) -> Option<String> {
        decide(Descriptor {
            target,
            device: target.starts_with("/dev/"),
            protocol: None,
        })
    }

    #[test]
    fn kernel_objects_that_criu_does_not_know_are_named() {
        for (target, kind) in [
            ("anon_inode:[io_uring]", "an io_uring"),
            ("anon_inode:[userfaultfd]", "a userfaultfd"),
            ("anon_inode:[perf_event]", "a perf event"),
            ("anon_inode:bpf-map", "a BPF object"),
            ("anon_inode:kvm-vcpu:0", "a virtual machine"),
            ("anon_inode:[landlock-ruleset]", "a `landlock-ruleset`"),
            ("/secretmem (deleted)", "secret memory"),
            ("/dev/kvm", "the device `/dev/kvm`"),
            ("/dev/net/tun", "the device `/dev/net/tun`"),
        ] {
            assert_eq!(of(target).as_deref(), Some(kind));
        }
    }

    #[test]
    fn what_moves_is_let_pass() {
        for target in [
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "anon_inode:inotify",
            "anon_inode:[timerfd]",
            "pipe:[1]",
            "socket:[2]",
            "/memfd:x (deleted)",
            "/data/file (deleted)",
            "/dev/null",
            "/dev/urandom",
            "/dev/pts/0",
            "/dev/tty",
        ] {
            assert_eq!(of(target), None, "{target}");
        }
        // A file in a tmpfs there is no device.
        let file = Descriptor {
            target: "/dev/shm/x",
            device: false,
            protocol: None,
        };
        assert_eq!(decide(file), None);
    }

    #[test]
    fn sockets_are_told_by_their_protocol() {
        let of = |protocol| {
            decide(Descriptor {
                target: "socket:[1]",
                device: false,
                protocol: Some(protocol),
            })
        };
        assert_eq!(of("MPTCPv6").as_deref(), Some("an `MPTCP` socket"));
        for name in ["TCP", "TCPv6", "UDP", "UNIX-STREAM", "NETLINK"] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn it_is_said_who_has_what_where() {
        let one = |pid, number: &str| (pid, number.to_owned(), "an io_uring".to_owned());
        let name = |_| "x".to_owned();
        assert_eq!(say(&[], name), None);
        assert_eq!(
            say(&[one(12, "5")], name).unwrap(),
            "process 12 (`x`) has an io_uring on descriptor 5, which can't be moved"
        );
        let many: Vec<_> = (0..5).map(|pid| one(pid, "3")).collect();
        assert!(
            say(&many, name)
                .unwrap()
                .ends_with("and there are 2 more, which can't be moved")
        );
    }

    #[test]
    fn of_this_process_a_socket_is_looked_at_and_a_watch_of_faults_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let path = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&listener)
        );
        assert_eq!(protocol(Path::new(&path)).unwrap(), "TCP");
        assert_eq!(look(Path::new(&path)), None);
    }
}
