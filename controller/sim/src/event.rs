//! Virtual time and what waits in it.

use std::collections::BTreeMap;

use godwit_agent::ledger::Answer;
use godwit_types::{AgentCommand, ContainerId, HostName, InstanceReport, OperationId};
use raft::eraftpb::Message;

use crate::{faults::Fault, network::LinkId};

/// Virtual time since the run began.
pub type Micros = u64;
pub const MILLI: Micros = 1000;
pub const SECOND: Micros = 1_000_000;

/// What a member says on an agent's session.
#[derive(Debug, Clone)]
pub enum ToAgent {
    Welcome,
    /// The one that leads, if it is known.
    NotLeader(Option<usize>),
    Command(Box<AgentCommand>),
}

/// What an agent says on its session.
#[derive(Debug, Clone)]
pub enum FromAgent {
    Hello(HostName, Vec<InstanceReport>),
    Report(Vec<InstanceReport>),
    Answer(OperationId, Box<Answer>),
}

/// Something that happens at its time. `life` is the incarnation that it is meant for: the next
/// one never hears of it.
#[derive(Debug)]
pub enum Event {
    Tick {
        member: usize,
        life: u64,
    },
    Raft {
        to: usize,
        message: Box<Message>,
    },
    Unreachable {
        member: usize,
        peer: u64,
    },
    Synced {
        member: usize,
        life: u64,
    },
    ToMember {
        link: LinkId,
        message: FromAgent,
    },
    ToAgent {
        link: LinkId,
        message: ToAgent,
    },
    AgentTick {
        host: usize,
        life: u64,
    },
    /// The runtime gets to the point where a verb takes effect. It outlives its agent.
    Effect {
        host: usize,
        container: ContainerId,
        work: u64,
    },
    /// The agent hears how a verb ended.
    Finished {
        host: usize,
        life: u64,
        container: ContainerId,
        work: u64,
        answer: Box<Answer>,
    },
    /// A write to the ledger is over.
    Stored {
        host: usize,
        life: u64,
        container: ContainerId,
    },
    /// A container ends on its own.
    Exits {
        host: usize,
        container: ContainerId,
    },
    Request {
        member: usize,
        request: u64,
    },
    Ask,
    /// An admin wants another group of members.
    Reshape,
    Fault(Fault),
    /// Strikes at random, then asks for the next.
    Strike,
    Settle,
}

/// Events by time; those of one instant in the order in which they were put.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(Micros, u64), Event>,
    next: u64,
}

impl Queue {
    pub fn put(&mut self, at: Micros, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    pub fn take(&mut self) -> Option<(Micros, Event)> {
        let ((at, _), event) = self.events.pop_first()?;
        Some((at, event))
    }
}
