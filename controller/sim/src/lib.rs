//! A whole cluster in one thread and in virtual time. A seed is a run: the same number gives the
//! same events, the same faults, the same end, on every machine.
//!
//! ```text
//!   client ──▶ member ×3 or 5              raft's RawNode, godwit-core: the real ones
//!                │  leader                 the steps of controller/src/leader
//!              link                        sessions that break, messages that get lost
//!                │
//!              agent ×3 ── runtime         agent's own admission, effects, record; a model of
//!                                          the shims that hold what runs, is frozen or staged
//!   faults ──▶ all of it        truth, clients, settled ◀── what must hold
//! ```

mod agent;
mod bug;
mod client;
mod context;
mod disk;
mod event;
mod faults;
mod leader;
mod member;
mod network;
mod rng;
mod settled;
mod trace;
mod truth;
mod world;

use std::{
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, catch_unwind},
};

use godwit_types::{HostName, Phase};

pub use bug::Bug;
pub use context::Broken;
use world::World;

/// How many hosts there are.
const HOSTS: usize = 3;

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub seed: u64,
    /// Of every event and the last state.
    pub hash: u64,
    pub events: u64,
    /// Virtual time at its end.
    pub micros: u64,
    /// Log entries applied.
    pub entries: u64,
    /// Requests that a client was told were done.
    pub acknowledged: u64,
    /// Migrations that a client was told had begun.
    pub migrations: u64,
    /// Migrations that are done.
    pub moved: u64,
    /// The first rule that did not hold.
    pub broken: Option<Broken>,
}

/// Runs a seed. `bug`: a mistake to put in; `print`: a line to standard output for each event.
pub fn simulate(seed: u64, bug: Option<Bug>, print: bool) -> Run {
    let mut world = World::new(seed, bug, print);
    // raft and the state machine's own checks panic where they can't go on.
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ended {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("it gave no reason").to_owned();
        world.context.broke("nothing panics", what);
    }
    let context = world.context;
    let migrations = context.truth.state().migrations.values();
    let moved = migrations.filter(|m| m.phase == Phase::Done).count() as u64;
    Run {
        seed,
        hash: context.trace.hash(),
        events: context.trace.events,
        micros: context.now,
        entries: context.truth.last(),
        acknowledged: context.clients.acknowledged,
        migrations: context.clients.migrations() as u64,
        moved,
        broken: context.broken,
    }
}

fn host_name(index: usize) -> HostName {
    HostName::new(format!("h{index}")).expect("a valid name")
}

fn host_index(host: &HostName) -> usize {
    let number = host.as_str().trim_start_matches('h');
    number.parse().expect("a name that this program gave")
}

/// Where its agent serves, and where packets for it go.
fn host_address(host: &HostName) -> (String, Ipv4Addr) {
    let address = Ipv4Addr::new(192, 0, 2, host_index(host) as u8 + 1);
    (format!("{address}:7402"), address)
}
