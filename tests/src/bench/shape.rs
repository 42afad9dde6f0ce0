//! Links of a given speed: a token bucket on the way out of a host and on the way in.
//!
//! The packets of containers (VXLAN, so UDP) and all others share it: each kind has half of it for
//! sure and takes what the other leaves, as the fair queues that Linux puts on network cards let thin
//! flows go first. In one queue for all, a client would measure how long that queue is. One bucket
//! for both does the same, even with queues of their own behind it: a segment of 64 KiB that was
//! taken from its queue and waits for the bucket keeps everything behind it.

use anyhow::Result;

use crate::{
    command::{run, sh},
    testbed::Host,
};

/// What a queue holds before it drops: 5 ms at 1 Gb/s.
const QUEUE: u64 = 625_000;

/// Shaped links. Dropped, they are as before.
pub struct Shaped<'a> {
    hosts: &'a [Host],
}

impl<'a> Shaped<'a> {
    pub fn new(hosts: &'a [Host], mbit: u64) -> Result<Self> {
        let shaped = Self { hosts };
        for host in hosts {
            for line in lines("eth0", mbit) {
                run(inside(host, &line))?;
            }
            for line in lines(host.port(), mbit) {
                sh(&line)?;
            }
        }
        Ok(shaped)
    }
}

impl Drop for Shaped<'_> {
    fn drop(&mut self) {
        for host in self.hosts {
            // Fails for one that was never shaped.
            let _ = run(inside(host, "tc qdisc del dev eth0 root"));
            let _ = sh(&format!("tc qdisc del dev {} root", host.port()));
        }
    }
}

fn inside(host: &Host, line: &str) -> std::process::Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    host.command(words[0], &words[1..])
}

fn lines(device: &str, mbit: u64) -> [String; 7] {
    let class = |id: &str, parent: &str, rate: u64, prio: u8| {
        format!(
            "tc class replace dev {device} parent 2:{parent} classid 2:{id} htb rate {rate}mbit \
             ceil {mbit}mbit burst 256kb cburst 256kb quantum 65536 prio {prio}"
        )
    };
    let queue = |id: u8| {
        format!("tc qdisc replace dev {device} parent 2:{id} handle {id}: bfifo limit {QUEUE}")
    };
    [
        format!("tc qdisc replace dev {device} root handle 2: htb default 20"),
        class("1", "", mbit, 0),
        class("10", "1", mbit / 2, 0),
        class("20", "1", mbit / 2, 1),
        queue(10),
        queue(20),
        format!(
            "tc filter add dev {device} parent 2: protocol ip u32 match ip protocol 17 0xff \
             flowid 2:10"
        ),
    ]
}
