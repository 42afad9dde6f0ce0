//! What goes wrong, and when it is over. A seed also says how bad its run is.

use godwit_types::ContainerId;

use crate::{
    HOSTS,
    context::Context,
    event::{Event, MILLI, Micros, SECOND},
    network::{Node, Weather},
    rng::Rng,
};

/// One thing that goes wrong, or ends to.
#[derive(Debug, Clone)]
pub enum Fault {
    CrashMember(usize),
    StartMember(usize),
    CrashAgent(usize),
    StartAgent(usize),
    Cut(Vec<(Node, Node)>),
    Mend(Vec<(Node, Node)>),
    /// A clock shows this much more from now on: what waits is over early.
    Jump(Node, Micros),
    /// A machine does nothing for so long: what waits is late.
    Pause(Node, Micros),
    DiskFull(Node),
    DiskFree(Node),
    Exit(usize, ContainerId),
}

/// How bad a run is.
#[derive(Debug, Clone, Copy)]
pub struct Climate {
    pub weather: Weather,
    /// The longest time between two faults.
    pub pause: Micros,
    /// How often a verb fails, of 10,000.
    pub failing: u64,
    /// How long things go wrong.
    pub lasts: Micros,
    pub snapshot_every: u64,
    pub founders: usize,
    /// Machines for members, those of the founders included.
    pub members: usize,
}

impl Climate {
    pub fn new(rng: &mut Rng) -> Self {
        let bad = [0, 50, 300];
        let any = |rng: &mut Rng, of: &[u64]| of[rng.index(of.len())];
        let founders = any(rng, &[1, 3, 3, 3, 3, 3, 5, 5]) as usize;
        // In half of the runs the group changes.
        let spares = if rng.chance(5000) {
            2 + rng.index(4)
        } else {
            0
        };
        let founders = if spares == 0 {
            founders.max(3)
        } else {
            founders
        };
        Self {
            weather: Weather {
                drop: any(rng, &bad),
                duplicate: any(rng, &bad),
                slow: any(rng, &[0, 100, 1000]),
            },
            pause: any(rng, &[600, 1500, 4000]) * MILLI,
            failing: any(rng, &[0, 100, 800]),
            lasts: rng.range(5, 20) * SECOND,
            snapshot_every: any(rng, &[12, 40, 400]),
            founders,
            members: founders + spares,
        }
    }
}

/// Something strikes; its end is planned at once.
pub fn strike(context: &mut Context, members: usize, running: &[(usize, ContainerId)]) {
    let machines = members + HOSTS;
    let rng = &mut context.rng;
    let member = rng.index(members);
    let host = rng.index(HOSTS);
    let node = rng.index(machines);
    let lasts = match rng.range(0, 3) {
        0 => rng.range(10, 300) * MILLI,
        1 => rng.range(300, 3000) * MILLI,
        _ => rng.range(3, 9) * SECOND,
    };
    let (fault, end) = match rng.range(0, 100) {
        0..20 => (Fault::CrashMember(member), Some(Fault::StartMember(member))),
        20..45 => (Fault::CrashAgent(host), Some(Fault::StartAgent(host))),
        45..70 => {
            let pairs = cut(rng, node, machines);
            (Fault::Cut(pairs.clone()), Some(Fault::Mend(pairs)))
        }
        70..77 => (Fault::Jump(node, lasts), None),
        77..85 => (Fault::Pause(node, lasts), None),
        85..92 => (Fault::DiskFull(node), Some(Fault::DiskFree(node))),
        _ if running.is_empty() => return,
        _ => {
            let (host, container) = running[rng.index(running.len())].clone();
            (Fault::Exit(host, container), None)
        }
    };
    context.after(0, Event::Fault(fault));
    if let Some(end) = end {
        context.after(lasts, Event::Fault(end));
    }
}

/// Whom a machine loses: one or all others, in one direction or both.
fn cut(rng: &mut Rng, node: Node, machines: usize) -> Vec<(Node, Node)> {
    let all = rng.chance(5000);
    let one = rng.index(machines);
    let ways = rng.range(1, 4);
    (0..machines)
        .filter(|other| *other != node && (all || *other == one))
        .flat_map(|other| {
            let there = (ways & 1 != 0).then_some((node, other));
            let back = (ways & 2 != 0).then_some((other, node));
            there.into_iter().chain(back)
        })
        .collect()
}
