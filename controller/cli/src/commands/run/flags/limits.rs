//! How much of its host the container may take.

use godwit_types::{ByteSize, Cpus, DeviceRate, Limits};

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Most memory, as in 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Most memory and swap together, as in 1g; -1 for no bound [default: twice the memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = memory_swap)]
    memory_swap: Option<i64>,
    /// What it is pressed down to when its host runs short of memory
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<ByteSize>,
    /// Have its processes wait for memory where they would be killed
    #[arg(long)]
    oom_kill_disable: bool,
    /// How gladly the kernel kills it for want of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Most processor time, in processors, as in 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Its share of processor time beside others, of 1024
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// The processors it may use, as in 0-2,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 for no bound
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Its share of disk time beside others, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u16>,
    /// Most bytes a second read from a device of its host, as in /dev/sda:10m
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<DeviceRate>,
    /// Most bytes a second written to a device of its host
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<DeviceRate>,
    /// Most reads a second from a device of its host
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<DeviceRate>,
    /// Most writes a second to a device of its host
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<DeviceRate>,
}

/// A size, or -1.
pub fn memory_swap(text: &str) -> Result<i64, godwit_types::UnitError> {
    match text {
        "-1" => Ok(-1),
        size => size.parse().map(|size: ByteSize| size.0 as i64),
    }
}

impl Flags {
    pub fn limits(self) -> anyhow::Result<Limits> {
        let limits = Limits {
            memory: self.memory.filter(|size| size.0 != 0),
            cpus: self.cpus,
            pids: match self.pids_limit {
                None | Some(0 | -1) => None,
                Some(pids) => Some(u32::try_from(pids).map_err(|_| {
                    godwit_types::OptionProblem::new(
                        "--pids-limit",
                        &pids.to_string(),
                        "a number of processes, or -1 for no bound",
                    )
                })?),
            },
            memory_swap: self.memory_swap.filter(|swap| *swap != 0),
            memory_reservation: self.memory_reservation.filter(|size| size.0 != 0),
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj,
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            cpuset_cpus: self.cpuset_cpus,
            blkio_weight: self.blkio_weight.filter(|weight| *weight != 0),
            device_read_bps: self.device_read_bps,
            device_write_bps: self.device_write_bps,
            device_read_iops: self.device_read_iops,
            device_write_iops: self.device_write_iops,
        };
        limits.check()?;
        Ok(limits)
    }
}
