//! How much of a host a container may take.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Cpus, OptionProblem};

/// Bounds and shares; None: none. Those after `pids` came later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    pub memory: Option<ByteSize>,
    pub cpus: Option<Cpus>,
    pub pids: Option<u32>,
    /// Of memory and swap together; -1: no bound. None: twice the memory, as Docker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// What it is pressed down to when the host runs short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<ByteSize>,
    /// Its processes wait for memory and are not killed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// 2 to 262144; 1024 is everybody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// As `0-2,5`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// 10 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<DeviceRate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<DeviceRate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<DeviceRate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<DeviceRate>,
}

/// `/dev/sda:10m`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    pub device: String,
    /// A second.
    pub rate: u64,
}

impl FromStr for DeviceRate {
    type Err = OptionProblem;
    fn from_str(text: &str) -> Result<Self, OptionProblem> {
        let refuse = || OptionProblem::new("rate of a device", text, "/dev/DEVICE:RATE");
        let (device, rate) = text.rsplit_once(':').ok_or_else(refuse)?;
        let rate: ByteSize = rate.parse().map_err(|_| refuse())?;
        let inside = device.starts_with("/dev/")
            && !device.split('/').any(|part| part == "..")
            && !device.chars().any(char::is_control);
        if inside && rate.0 > 0 {
            Ok(Self {
                device: device.to_owned(),
                rate: rate.0,
            })
        } else {
            Err(refuse())
        }
    }
}

/// The least memory that Docker grants.
const LEAST_MEMORY: u64 = 6 << 20;

/// `0-2,5`, sorted out.
pub fn cpuset(text: &str) -> Result<Vec<u32>, OptionProblem> {
    let refuse = || OptionProblem::new("--cpuset-cpus", text, "processors such as `0-2,5`");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (
            from.parse().map_err(|_| refuse())?,
            to.parse().map_err(|_| refuse())?,
        );
        if from > to || to >= 4096 {
            return Err(refuse());
        }
        cpus.extend(from..=to);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// Shares of v1 as the weight of v2, 1 to 10000, as the OCI runtimes convert it.
pub fn shares_to_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

impl Limits {
    /// What is out of its range, or contradicts itself.
    pub fn check(&self) -> Result<(), OptionProblem> {
        let refuse =
            |option, given: String, takes: &str| Err(OptionProblem::new(option, &given, takes));
        if let Some(memory) = self.memory
            && memory.0 < LEAST_MEMORY
        {
            return refuse("--memory", memory.0.to_string(), "at least 6m");
        }
        match (self.memory_swap, self.memory) {
            (None | Some(-1), _) => {}
            (Some(swap), None) => {
                return refuse(
                    "--memory-swap",
                    swap.to_string(),
                    "only together with --memory",
                );
            }
            (Some(swap), Some(memory)) if swap < memory.0 as i64 => {
                return refuse(
                    "--memory-swap",
                    swap.to_string(),
                    "no less than --memory: it is of memory and swap together; -1 for no bound",
                );
            }
            _ => {}
        }
        if let (Some(reservation), Some(memory)) = (self.memory_reservation, self.memory)
            && reservation > memory
        {
            return refuse(
                "--memory-reservation",
                reservation.0.to_string(),
                "no more than --memory",
            );
        }
        if let Some(score) = self.oom_score_adj
            && !(-1000..=1000).contains(&score)
        {
            return refuse("--oom-score-adj", score.to_string(), "-1000 to 1000");
        }
        if let Some(shares) = self.cpu_shares
            && !(2..=262_144).contains(&shares)
        {
            return refuse("--cpu-shares", shares.to_string(), "2 to 262144");
        }
        if let Some(weight) = self.blkio_weight
            && !(10..=1000).contains(&weight)
        {
            return refuse("--blkio-weight", weight.to_string(), "10 to 1000");
        }
        if self.pids == Some(0) {
            return refuse(
                "--pids-limit",
                "0".to_owned(),
                "at least 1, or -1 for no bound",
            );
        }
        if let Some(cpus) = &self.cpuset_cpus {
            cpuset(cpus)?;
        }
        for rate in self.rates() {
            format!("{}:{}", rate.device, rate.rate).parse::<DeviceRate>()?;
        }
        Ok(())
    }

    /// Of all kinds.
    pub fn rates(&self) -> impl Iterator<Item = &DeviceRate> {
        self.device_read_bps
            .iter()
            .chain(&self.device_write_bps)
            .chain(&self.device_read_iops)
            .chain(&self.device_write_iops)
    }
}

/// What `update` changes; None: it stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsChange {
    /// 0: no bound, as for the next two.
    pub memory: Option<ByteSize>,
    pub memory_reservation: Option<ByteSize>,
    /// 0: no bound.
    pub cpus: Option<Cpus>,
    pub memory_swap: Option<i64>,
    /// -1: no bound.
    pub pids: Option<i64>,
    pub cpu_shares: Option<u64>,
    pub cpuset_cpus: Option<String>,
    pub blkio_weight: Option<u16>,
}

impl LimitsChange {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The limits after it.
    pub fn over(&self, limits: &Limits) -> Limits {
        let mut new = limits.clone();
        let bytes = |size: ByteSize| (size.0 != 0).then_some(size);
        if let Some(memory) = self.memory {
            new.memory = bytes(memory);
        }
        if let Some(reservation) = self.memory_reservation {
            new.memory_reservation = bytes(reservation);
        }
        if let Some(cpus) = self.cpus {
            new.cpus = (cpus.0 != 0).then_some(cpus);
        }
        if let Some(swap) = self.memory_swap {
            new.memory_swap = (swap != 0).then_some(swap);
        }
        if let Some(pids) = self.pids {
            new.pids = u32::try_from(pids).ok().filter(|pids| *pids > 0);
        }
        new.cpu_shares = self.cpu_shares.or(new.cpu_shares);
        new.cpuset_cpus = self.cpuset_cpus.clone().or(new.cpuset_cpus);
        new.blkio_weight = self.blkio_weight.or(new.blkio_weight);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_contradict_each_other_are_refused_by_name() {
        let with = |change: fn(&mut Limits)| {
            let mut limits = Limits {
                memory: Some(ByteSize(64 << 20)),
                ..Limits::default()
            };
            change(&mut limits);
            limits.check().map_err(|problem| problem.option)
        };
        assert_eq!(with(|l| l.memory_swap = Some(-1)), Ok(()));
        assert_eq!(with(|l| l.memory_swap = Some(1)), Err("--memory-swap"));
        assert_eq!(
            with(|l| l.memory_reservation = Some(ByteSize(65 << 20))),
            Err("--memory-reservation")
        );
        assert_eq!(with(|l| l.memory = Some(ByteSize(1024))), Err("--memory"));
        assert_eq!(
            with(|l| l.oom_score_adj = Some(1001)),
            Err("--oom-score-adj")
        );
        assert_eq!(with(|l| l.cpu_shares = Some(1)), Err("--cpu-shares"));
        assert_eq!(with(|l| l.blkio_weight = Some(9)), Err("--blkio-weight"));
        assert_eq!(
            with(|l| l.cpuset_cpus = Some("2-1".into())),
            Err("--cpuset-cpus")
        );
    }

    #[test]
    fn processors_are_listed_as_docker_lists_them() {
        assert_eq!(cpuset("0-2,5,1").unwrap(), [0, 1, 2, 5]);
        for bad in ["", "a", "1-", "3-1", "0,,1", "0-9999999"] {
            assert!(cpuset(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_become_weights_as_the_oci_runtimes_do_it() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(shares_to_weight(shares), weight);
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let old = Limits {
            memory: Some(ByteSize(64 << 20)),
            pids: Some(5),
            ..Limits::default()
        };
        let change = LimitsChange {
            memory: Some(ByteSize(0)),
            cpus: Some(Cpus(500)),
            ..LimitsChange::default()
        };
        let new = change.over(&old);
        assert_eq!(
            (new.memory, new.cpus, new.pids),
            (None, Some(Cpus(500)), Some(5))
        );
        assert!(LimitsChange::default().is_empty() && !change.is_empty());
    }

    #[test]
    fn what_an_older_build_wrote_is_read_and_written_the_same() {
        let json = r#"{"memory":1,"cpus":null,"pids":7}"#;
        let limits: Limits = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&limits).unwrap(), json);
    }
}
