//! Which of the testbed's address ranges and names a cluster may use: one cluster each, held by
//! a lock that the kernel takes back when the process ends.

use std::fs::{self, File};

use anyhow::{Result, bail};

use super::cgroups;
use crate::command::sh;

/// A number that no other running cluster has. Names and addresses follow from it.
#[derive(Debug)]
pub struct Slot {
    number: u8,
    _lock: Option<File>,
}

impl Slot {
    /// The slot of a cluster that another process left running.
    pub fn adopt(number: u8) -> Self {
        Self {
            number,
            _lock: None,
        }
    }

    pub fn number(&self) -> u8 {
        self.number
    }

    pub fn take() -> Result<Self> {
        let dir = std::env::temp_dir().join("godwit-testbed");
        fs::create_dir_all(&dir)?;
        for number in 1..=250 {
            let lock = File::create(dir.join(format!("slot-{number}")))?;
            if lock.try_lock().is_err() {
                continue;
            }
            let slot = Self {
                number,
                _lock: Some(lock),
            };
            // A cluster that was left running holds no lock, but its bridge has ports.
            let bridge = slot.bridge();
            let ports = fs::read_dir(format!("/sys/class/net/{bridge}/brif"));
            match ports.map(|mut ports| ports.next().is_some()) {
                Ok(true) => continue,
                // Of a test that was killed: its hosts went with it.
                Ok(false) => drop(sh(&format!("ip link delete {bridge}"))),
                Err(_) => {}
            }
            cgroups::remove(&slot.cgroup());
            return Ok(slot);
        }
        bail!(
            "all 250 slots of the testbed are taken; is a cluster left over? see `cargo xtask demo --stop`"
        )
    }

    /// The bridge between the hosts, in the namespace of who started the testbed.
    pub fn bridge(&self) -> String {
        format!("gwt{}", self.number)
    }

    /// The bridge's port of a host.
    pub fn port(&self, host: u8) -> String {
        format!("gwt{}h{host}", self.number)
    }

    /// An address from the range for tests between networks (RFC 2544): no real host has one.
    pub fn address(&self, host: u8) -> String {
        format!("198.18.{}.{host}", self.number)
    }

    /// The cgroup of everything in this cluster.
    pub fn cgroup(&self) -> String {
        format!("godwit-testbed-{}", self.number)
    }
}
