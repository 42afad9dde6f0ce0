//! What a container uses, of its control group's files and its network's counters. A counter that
//! this kernel does not keep is 0.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use godwit_types::{CgroupMode, Usage};

use crate::cgroup;

/// Of the group at `path` below the hierarchies' roots, and of the network of this process.
pub fn usage(path: &str, pid: i32) -> Usage {
    let v2 = matches!(cgroup::mode(), Ok(CgroupMode::V2));
    let dir = |controller: &str| match v2 {
        true => Path::new("/sys/fs/cgroup").join(path),
        false => Path::new("/sys/fs/cgroup").join(controller).join(path),
    };
    let mut usage = match v2 {
        true => of_v2(&dir("")),
        false => of_v1(dir),
    };
    let host = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let host = keyed(&host, "MemTotal:") * 1024;
    // No limit is a number that no host has.
    if usage.memory_limit == 0 || usage.memory_limit > host {
        usage.memory_limit = host;
    }
    let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    (usage.received, usage.sent) = network(&devices);
    usage.cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    usage.at_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    usage
}

fn of_v2(dir: &Path) -> Usage {
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let (read, written) = io_v2(&text("io.stat"));
    let cached = keyed(&text("memory.stat"), "inactive_file");
    Usage {
        cpu_ns: keyed(&text("cpu.stat"), "usage_usec") * 1000,
        memory: number(&text("memory.current")).saturating_sub(cached),
        memory_limit: number(&text("memory.max")),
        pids: number(&text("pids.current")),
        read,
        written,
        ..Usage::default()
    }
}

fn of_v1(dir: impl Fn(&str) -> PathBuf) -> Usage {
    let text = |controller: &str, name: &str| {
        fs::read_to_string(dir(controller).join(name)).unwrap_or_default()
    };
    let (read, written) = io_v1(&text("blkio", "blkio.throttle.io_service_bytes"));
    let cached = keyed(&text("memory", "memory.stat"), "total_inactive_file");
    Usage {
        cpu_ns: number(&text("cpuacct", "cpuacct.usage")),
        memory: number(&text("memory", "memory.usage_in_bytes")).saturating_sub(cached),
        memory_limit: number(&text("memory", "memory.limit_in_bytes")),
        pids: number(&text("pids", "pids.current")),
        read,
        written,
        ..Usage::default()
    }
}

/// `max` is none.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn keyed(text: &str, key: &str) -> u64 {
    let mut lines = text.lines().map(str::split_whitespace);
    lines
        .find_map(|mut words| (words.next() == Some(key)).then(|| words.next()).flatten())
        .map_or(0, number)
}

/// `MAJOR:MINOR rbytes=N wbytes=N …` a device.
fn io_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(key))
            .map(number)
            .sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `MAJOR:MINOR Read N` a device.
fn io_v1(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.len() == 3 && words[1] == kind)
            .map(|words| number(words[2]))
            .sum()
    };
    (sum("Read"), sum("Write"))
}

/// Bytes received and sent, loopback apart.
fn network(devices: &str) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in devices.lines() {
        let Some((name, counters)) = line.split_once(':') else {
            continue;
        };
        let counters: Vec<u64> = counters.split_whitespace().map(number).collect();
        if name.trim() != "lo" && counters.len() >= 9 {
            sums.0 += counters[0];
            sums.1 += counters[8];
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_kinds_of_groups_are_read() {
        assert_eq!(
            io_v2("8:0 rbytes=10 wbytes=3 rios=1\n8:16 rbytes=5 wbytes=1\n"),
            (15, 4)
        );
        assert_eq!(
            io_v1("8:0 Read 10\n8:0 Write 3\n8:16 Read 5\nTotal 18\n"),
            (15, 3)
        );
        assert_eq!(keyed("a 1\nusage_usec 77\n", "usage_usec"), 77);
        assert_eq!((number("max\n"), number("12\n")), (0, 12));
        let devices = "Inter-| Receive\n face |bytes\n  lo: 9 0 0 0 0 0 0 0 9 0\n\
                       eth0: 5 0 0 0 0 0 0 0 7 0\n";
        assert_eq!(network(devices), (5, 7));
    }
}
