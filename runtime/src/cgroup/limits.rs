//! Limits as writes to the kernel's files: what goes where is pure, for both versions of cgroups;
//! writing it is at the end.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use godwit_types::{CgroupMode, DeviceRate, Limits, cpuset, shares_to_weight};

use super::{CgroupError, Result};

/// Microseconds over which a quota of processor time is counted.
const PERIOD: u64 = 100_000;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The hierarchy on v1; on v2 all are in one.
    pub controller: &'static str,
    pub file: &'static str,
    pub value: String,
    /// The option that asks for it.
    pub option: &'static str,
    /// It only takes back what was set before: where that can't be set, nothing is lost.
    pub reset: bool,
}

fn write(
    option: &'static str,
    controller: &'static str,
    file: &'static str,
    value: impl ToString,
) -> Write {
    Write {
        controller,
        file,
        value: value.to_string(),
        option,
        reset: false,
    }
}

fn reset(option: &'static str, controller: &'static str, file: &'static str, value: &str) -> Write {
    Write {
        reset: true,
        ..write(option, controller, file, value)
    }
}

/// `device`: `MAJOR:MINOR` of one.
pub fn writes(
    limits: &Limits,
    mode: CgroupMode,
    device: impl Fn(&DeviceRate) -> Result<String>,
) -> Result<Vec<Write>> {
    match mode {
        CgroupMode::V2 => v2(limits, device),
        CgroupMode::V1 | CgroupMode::Hybrid => v1(limits, device),
    }
}

/// Memory and swap together, as Docker has it: twice the memory when nothing is said.
fn memory_and_swap(limits: &Limits) -> Option<i64> {
    match (limits.memory_swap, limits.memory) {
        (Some(swap), _) => Some(swap),
        (None, Some(memory)) => Some((memory.0 as i64).saturating_mul(2)),
        (None, None) => None,
    }
}

fn v1(limits: &Limits, device: impl Fn(&DeviceRate) -> Result<String>) -> Result<Vec<Write>> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let mut writes = Vec::new();
    match limits.memory {
        Some(memory) => writes.push(write("--memory", "memory", MEMORY, memory.0)),
        None => writes.push(reset("--memory", "memory", MEMORY, "-1")),
    }
    match memory_and_swap(limits) {
        // Not asked for by name: without it swap is not counted, as on most hosts.
        Some(swap) if limits.memory_swap.is_none() => {
            writes.push(reset("--memory-swap", "memory", SWAP, &swap.to_string()));
        }
        Some(swap) => writes.push(write("--memory-swap", "memory", SWAP, swap)),
        None => writes.push(reset("--memory-swap", "memory", SWAP, "-1")),
    }
    const SOFT: &str = "memory.soft_limit_in_bytes";
    match limits.memory_reservation {
        Some(soft) => writes.push(write("--memory-reservation", "memory", SOFT, soft.0)),
        None => writes.push(reset("--memory-reservation", "memory", SOFT, "-1")),
    }
    if limits.oom_kill_disable {
        let file = "memory.oom_control";
        writes.push(write("--oom-kill-disable", "memory", file, 1));
    }
    match limits.cpus {
        Some(cpus) => {
            writes.push(write("--cpus", "cpu", "cpu.cfs_period_us", PERIOD));
            let quota = u64::from(cpus.0) * PERIOD / 1000;
            writes.push(write("--cpus", "cpu", "cpu.cfs_quota_us", quota));
        }
        None => writes.push(reset("--cpus", "cpu", "cpu.cfs_quota_us", "-1")),
    }
    if let Some(shares) = limits.cpu_shares {
        writes.push(write("--cpu-shares", "cpu", "cpu.shares", shares));
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        writes.push(write("--cpuset-cpus", "cpuset", "cpuset.cpus", cpus));
    }
    match limits.pids {
        Some(pids) => writes.push(write("--pids-limit", "pids", "pids.max", pids)),
        None => writes.push(reset("--pids-limit", "pids", "pids.max", "max")),
    }
    if let Some(weight) = limits.blkio_weight {
        writes.push(write("--blkio-weight", "blkio", "blkio.weight", weight));
    }
    for (rates, option, file) in [
        (
            &limits.device_read_bps,
            "--device-read-bps",
            "blkio.throttle.read_bps_device",
        ),
        (
            &limits.device_write_bps,
            "--device-write-bps",
            "blkio.throttle.write_bps_device",
        ),
        (
            &limits.device_read_iops,
            "--device-read-iops",
            "blkio.throttle.read_iops_device",
        ),
        (
            &limits.device_write_iops,
            "--device-write-iops",
            "blkio.throttle.write_iops_device",
        ),
    ] {
        for rate in rates {
            let value = format!("{} {}", device(rate)?, rate.rate);
            writes.push(write(option, "blkio", file, value));
        }
    }
    Ok(writes)
}

fn v2(limits: &Limits, device: impl Fn(&DeviceRate) -> Result<String>) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    match limits.memory {
        Some(memory) => writes.push(write("--memory", "memory", "memory.max", memory.0)),
        None => writes.push(reset("--memory", "memory", "memory.max", "max")),
    }
    const SWAP: &str = "memory.swap.max";
    // There it is of swap alone.
    let swap = match (memory_and_swap(limits), limits.memory) {
        (Some(both), Some(memory)) if both >= 0 => Some((both as u64).saturating_sub(memory.0)),
        _ => None,
    };
    match swap {
        Some(swap) if limits.memory_swap.is_some() => {
            writes.push(write("--memory-swap", "memory", SWAP, swap));
        }
        Some(swap) => writes.push(reset("--memory-swap", "memory", SWAP, &swap.to_string())),
        None => writes.push(reset("--memory-swap", "memory", SWAP, "max")),
    }
    match limits.memory_reservation {
        Some(soft) => writes.push(write(
            "--memory-reservation",
            "memory",
            "memory.low",
            soft.0,
        )),
        None => writes.push(reset("--memory-reservation", "memory", "memory.low", "0")),
    }
    if limits.oom_kill_disable {
        // No such file: cgroup v2 has no such thing.
        let file = "memory.oom_control";
        writes.push(write("--oom-kill-disable", "memory", file, 1));
    }
    match limits.cpus {
        Some(cpus) => {
            let quota = u64::from(cpus.0) * PERIOD / 1000;
            let value = format!("{quota} {PERIOD}");
            writes.push(write("--cpus", "cpu", "cpu.max", value));
        }
        None => writes.push(reset("--cpus", "cpu", "cpu.max", &format!("max {PERIOD}"))),
    }
    if let Some(shares) = limits.cpu_shares {
        let weight = shares_to_weight(shares);
        writes.push(write("--cpu-shares", "cpu", "cpu.weight", weight));
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        writes.push(write("--cpuset-cpus", "cpuset", "cpuset.cpus", cpus));
    }
    match limits.pids {
        Some(pids) => writes.push(write("--pids-limit", "pids", "pids.max", pids)),
        None => writes.push(reset("--pids-limit", "pids", "pids.max", "max")),
    }
    if let Some(weight) = limits.blkio_weight {
        let weight = 1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990;
        let value = format!("default {weight}");
        writes.push(write("--blkio-weight", "io", "io.weight", value));
    }
    for (rates, option, key) in [
        (&limits.device_read_bps, "--device-read-bps", "rbps"),
        (&limits.device_write_bps, "--device-write-bps", "wbps"),
        (&limits.device_read_iops, "--device-read-iops", "riops"),
        (&limits.device_write_iops, "--device-write-iops", "wiops"),
    ] {
        for rate in rates {
            let value = format!("{} {key}={}", device(rate)?, rate.rate);
            writes.push(write(option, "io", "io.max", value));
        }
    }
    Ok(writes)
}

/// `MAJOR:MINOR` of a block device of this host.
pub fn block_device(rate: &DeviceRate) -> Result<String> {
    let path = PathBuf::from(&rate.device);
    let failed = |source| CgroupError::File {
        path: path.clone(),
        source,
    };
    let metadata = fs::metadata(&path).map_err(failed)?;
    if !metadata.file_type().is_block_device() {
        let text = "not a block device";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    let number = metadata.rdev();
    Ok(format!(
        "{}:{}",
        rustix::fs::major(number),
        rustix::fs::minor(number)
    ))
}

/// Writes them below `dir(controller)`. Answers what this host lacks, a line each.
pub fn apply(writes: &[Write], dir: impl Fn(&str) -> PathBuf) -> Result<Vec<String>> {
    let mut lacking = Vec::new();
    let mut again = Vec::new();
    for one in writes {
        match put(one, &dir) {
            Ok(()) => {}
            Err(error) if is_missing(&error) => lack(&mut lacking, one),
            // Memory may not be more than memory and swap together, not even for a moment: which
            // of the two goes first depends on what they were.
            Err(error) if one.controller == "memory" && error.kind() != io::ErrorKind::NotFound => {
                again.push(one);
            }
            Err(_) if one.reset => {}
            Err(source) => return Err(failed(one, &dir, source)),
        }
    }
    for one in again {
        match put(one, &dir) {
            Ok(()) => {}
            Err(_) if one.reset => {}
            Err(source) => return Err(failed(one, &dir, source)),
        }
    }
    Ok(lacking)
}

fn put(one: &Write, dir: &impl Fn(&str) -> PathBuf) -> io::Result<()> {
    let path = dir(one.controller).join(one.file);
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, one.value.as_bytes())
}

fn is_missing(error: &io::Error) -> bool {
    const ENOTSUP: i32 = nix::libc::EOPNOTSUPP;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENOTSUP)
}

fn lack(lacking: &mut Vec<String>, one: &Write) {
    if !one.reset {
        lacking.push(format!(
            "`{}` is without effect: this host's kernel has no `{}` for containers",
            one.option, one.file
        ));
    }
}

fn failed(one: &Write, dir: &impl Fn(&str) -> PathBuf, source: io::Error) -> CgroupError {
    CgroupError::Limit {
        option: one.option,
        value: one.value.clone(),
        path: dir(one.controller).join(one.file),
        source,
    }
}

/// How often the kernel killed something in this group for want of memory.
pub fn oom_kills(mode: CgroupMode, dir: &Path) -> u64 {
    let file = match mode {
        CgroupMode::V2 => "memory.events",
        CgroupMode::V1 | CgroupMode::Hybrid => "memory.oom_control",
    };
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Processors that were asked for and are not on this host.
pub fn missing_cpus(limits: &Limits, online: &str) -> Vec<u32> {
    let online = cpuset(online.trim()).unwrap_or_default();
    let wanted = limits.cpuset_cpus.as_deref().map(cpuset);
    let wanted = wanted.and_then(std::result::Result::ok).unwrap_or_default();
    wanted
        .into_iter()
        .filter(|cpu| !online.contains(cpu))
        .collect()
}

#[cfg(test)]
mod tests {
    use godwit_types::{ByteSize, Cpus};

    use super::*;

    fn all() -> Limits {
        let rate = |rate| {
            vec![DeviceRate {
                device: "/dev/sda".into(),
                rate,
            }]
        };
        Limits {
            memory: Some(ByteSize(64 << 20)),
            cpus: Some(Cpus(1500)),
            pids: Some(7),
            memory_swap: Some(96 << 20),
            memory_reservation: Some(ByteSize(32 << 20)),
            oom_kill_disable: false,
            oom_score_adj: None,
            cpu_shares: Some(1024),
            cpuset_cpus: Some("0-1".into()),
            blkio_weight: Some(500),
            device_read_bps: rate(1000),
            device_write_bps: rate(2000),
            device_read_iops: rate(30),
            device_write_iops: rate(40),
        }
    }

    fn pairs(mode: CgroupMode, limits: &Limits) -> Vec<(&'static str, String)> {
        let device = |_: &DeviceRate| Ok("8:0".to_owned());
        let writes = writes(limits, mode, device).unwrap();
        writes.into_iter().map(|w| (w.file, w.value)).collect()
    }

    #[test]
    fn v1_has_a_file_for_each() {
        let found = pairs(CgroupMode::Hybrid, &all());
        let expected = [
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "100663296"),
            ("memory.soft_limit_in_bytes", "33554432"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "150000"),
            ("cpu.shares", "1024"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "7"),
            ("blkio.weight", "500"),
            ("blkio.throttle.read_bps_device", "8:0 1000"),
            ("blkio.throttle.write_bps_device", "8:0 2000"),
            ("blkio.throttle.read_iops_device", "8:0 30"),
            ("blkio.throttle.write_iops_device", "8:0 40"),
        ];
        assert_eq!(
            found,
            expected.map(|(file, value)| (file, value.to_owned()))
        );
    }

    #[test]
    fn v2_counts_swap_apart_and_has_weights_for_shares() {
        let found = pairs(CgroupMode::V2, &all());
        let expected = [
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("memory.low", "33554432"),
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "39"),
            ("cpuset.cpus", "0-1"),
            ("pids.max", "7"),
            ("io.weight", "default 4950"),
            ("io.max", "8:0 rbps=1000"),
            ("io.max", "8:0 wbps=2000"),
            ("io.max", "8:0 riops=30"),
            ("io.max", "8:0 wiops=40"),
        ];
        assert_eq!(
            found,
            expected.map(|(file, value)| (file, value.to_owned()))
        );
    }

    #[test]
    fn without_a_word_swap_is_as_much_as_memory_and_minus_one_is_no_bound() {
        let mut limits = Limits {
            memory: Some(ByteSize(10)),
            ..Limits::default()
        };
        let swap = |limits: &Limits, mode| pairs(mode, limits)[1].1.clone();
        assert_eq!(swap(&limits, CgroupMode::V1), "20");
        assert_eq!(swap(&limits, CgroupMode::V2), "10");
        limits.memory_swap = Some(-1);
        assert_eq!(swap(&limits, CgroupMode::V1), "-1");
        assert_eq!(swap(&limits, CgroupMode::V2), "max");
    }

    #[test]
    fn what_a_kernel_lacks_is_named_and_what_it_refuses_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.max", "memory.swap.max", "cpu.max", "pids.max"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        let device = |_: &DeviceRate| Ok("8:0".to_owned());
        let limits = Limits {
            memory_reservation: Some(ByteSize(1)),
            oom_kill_disable: true,
            ..Limits::default()
        };
        let writes = writes(&limits, CgroupMode::V2, device).unwrap();
        let lacking = apply(&writes, |_| dir.path().to_owned()).unwrap();
        assert_eq!(lacking.len(), 2, "{lacking:?}");
        assert!(lacking[0].contains("--memory-reservation"), "{lacking:?}");
        assert!(lacking[1].contains("--oom-kill-disable"), "{lacking:?}");
        fs::create_dir(dir.path().join("cpu.weight")).unwrap();
        let bad = [write("--cpu-shares", "cpu", "cpu.weight", 3)];
        let error = apply(&bad, |_| dir.path().to_owned()).unwrap_err();
        assert!(error.to_string().contains("--cpu-shares"), "{error}");
    }

    #[test]
    fn kills_for_want_of_memory_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(oom_kills(CgroupMode::V2, dir.path()), 0);
        fs::write(dir.path().join("memory.events"), "oom 3\noom_kill 2\n").unwrap();
        assert_eq!(oom_kills(CgroupMode::V2, dir.path()), 2);
        let v1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        fs::write(dir.path().join("memory.oom_control"), v1).unwrap();
        assert_eq!(oom_kills(CgroupMode::Hybrid, dir.path()), 1);
    }

    #[test]
    fn processors_that_are_not_there_are_named() {
        let limits = Limits {
            cpuset_cpus: Some("0,2-3".into()),
            ..Limits::default()
        };
        assert_eq!(missing_cpus(&limits, "0-2\n"), [3]);
        assert_eq!(missing_cpus(&Limits::default(), "0"), [0; 0]);
    }
}
