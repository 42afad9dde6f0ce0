//! What is under way between the leader and the agents.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::Arc,
};

use godwit_agent::ledger::Answer;
use godwit_core::Ask;
use godwit_types::{AgentCommand, CommandFailure, FailureKind, HostName, OperationId, Verb};

/// A command on its way to a host. An operation id stands for one command of one host alone.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Index of the host.
    pub host: usize,
    pub command: Arc<AgentCommand>,
}

impl Sent {
    pub fn new(ask: Ask) -> Self {
        Self {
            host: index(&ask.host),
            command: Arc::new(ask.command),
        }
    }

    pub fn operation(&self) -> &OperationId {
        &self.command.operation
    }

    pub fn verb(&self) -> &Verb {
        &self.command.verb
    }
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.operation() == other.operation()
    }
}

impl Eq for Sent {}

impl PartialOrd for Sent {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Sent {
    fn cmp(&self, other: &Self) -> Ordering {
        self.operation().cmp(other.operation())
    }
}

impl Hash for Sent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.operation().hash(state);
    }
}

/// An answer on its way to whoever leads then.
#[derive(Debug, Clone)]
pub struct Reply {
    pub operation: OperationId,
    pub answer: Answer,
}

impl Reply {
    /// All that a leader looks at.
    fn key(&self) -> (&OperationId, Option<&CommandFailure>) {
        (&self.operation, self.answer.as_ref().err())
    }
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Reply {}

impl PartialOrd for Reply {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reply {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |reply: &Self| {
            let (operation, failure) = reply.key();
            (operation.clone(), failure.map(|f| f.kind as u8))
        };
        order(self).cmp(&order(other))
    }
}

impl Hash for Reply {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (operation, failure) = self.key();
        operation.hash(state);
        failure.map(|f| f.kind as u8).hash(state);
    }
}

/// The hosts of the model.
pub fn host_name(index: usize) -> HostName {
    HostName::new(format!("h{}", index + 1)).expect("a valid literal")
}

pub fn index(host: &HostName) -> usize {
    usize::from(host.as_str() == "h2")
}

pub fn failure(kind: FailureKind, message: &str) -> CommandFailure {
    CommandFailure::new(kind, message)
}
