//! What this host has to remember of one container, and the stored form of it.
//!
//! Layout, version 1 (JSON, one file per container):
//!
//! ```text
//! version    1
//! container  the container's id, the same as in the file's name
//! highest    the highest generation that any command carried
//! role       {"role":"none", since_ms}
//!          | {"role":"owner", generation, spec, arrived: null | {migration, from}}
//!          | {"role":"incoming", generation, migration, from, spec}
//! left       the generation with which the container last left this host, or null
//! never      the highest generation of which this host has said that it never ran here, and for
//!            which it must never run anything; absent where it has said so of none
//! life       {stopped, leaving, details}: what was asked of the instance and what became of it;
//!            absent where nothing was
//! begun      the operation whose intent was written and whose result was not, or null
//! finished   the last 32 operations: {operation, verb, migration, result}, the oldest first
//! ```

use std::collections::VecDeque;

use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, ContainerSpec, Generation, HostName,
    InstanceDetails, MigrationId, OperationId, Outcome,
};
use serde::{Deserialize, Serialize};

/// The version this build writes and the highest it reads.
pub const VERSION: u32 = 1;
/// How many finished operations are kept per container.
pub const KEPT: usize = 32;

/// How a command ended.
pub type Answer = Result<Outcome, CommandFailure>;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub container: ContainerId,
    pub highest: Generation,
    pub role: Role,
    pub left: Option<Generation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub never: Option<Generation>,
    #[serde(default, skip_serializing_if = "Life::is_new")]
    pub life: Life,
    pub begun: Option<OperationId>,
    pub finished: VecDeque<Finished>,
}

/// What decides whether an instance that has ended is started again, and what is said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// Somebody stopped it, or is about to.
    pub stopped: bool,
    /// A migration that may take it elsewhere: on the disk before it can.
    pub leaving: Option<MigrationId>,
    pub details: InstanceDetails,
}

impl Life {
    fn is_new(&self) -> bool {
        *self == Self::default()
    }
}

/// What this host is to the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// It is not here.
    None {
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// This host runs it, or ran it until it ended.
    Owner {
        generation: Generation,
        spec: Box<ContainerSpec>,
        /// How it came here, if it did: from there memory may still follow.
        #[serde(default)]
        arrived: Option<Arrived>,
    },
    /// It is on its way here; `generation` is the one after the commit.
    Incoming {
        generation: Generation,
        migration: MigrationId,
        from: HostName,
        spec: Box<ContainerSpec>,
    },
}

/// A container's way to this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    pub migration: MigrationId,
    pub from: HostName,
}

/// An operation that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    pub operation: OperationId,
    pub verb: String,
    pub migration: Option<MigrationId>,
    pub result: Stored,
}

/// An [`Answer`] as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stored {
    Outcome(Outcome),
    Failure(CommandFailure),
}

impl Record {
    /// Of a container that this host never heard of.
    pub fn unknown(container: ContainerId, now_ms: u64) -> Self {
        Self {
            version: VERSION,
            container,
            highest: Generation(0),
            role: Role::None { since_ms: now_ms },
            left: None,
            never: None,
            life: Life::default(),
            begun: None,
            finished: VecDeque::new(),
        }
    }

    /// What was answered to this operation.
    pub fn answer(&self, operation: &OperationId) -> Option<Answer> {
        let finished = self
            .finished
            .iter()
            .find(|done| done.operation == *operation)?;
        Some(match &finished.result {
            Stored::Outcome(outcome) => Ok(outcome.clone()),
            Stored::Failure(failure) => Err(failure.clone()),
        })
    }

    /// Keeps an answer, and forgets the oldest when there are too many.
    pub fn keep(&mut self, command: &AgentCommand, answer: &Answer) {
        self.finished.push_back(Finished {
            operation: command.operation.clone(),
            verb: command.verb.name().to_owned(),
            migration: crate::container::admission::migration(&command.verb).cloned(),
            result: match answer {
                Ok(outcome) => Stored::Outcome(outcome.clone()),
                Err(failure) => Stored::Failure(failure.clone()),
            },
        });
        while self.finished.len() > KEPT {
            self.finished.pop_front();
        }
    }

    /// The instance's own generation, None when there is no instance.
    pub fn generation(&self) -> Option<Generation> {
        match &self.role {
            Role::None { .. } => None,
            Role::Owner { generation, .. } | Role::Incoming { generation, .. } => Some(*generation),
        }
    }

    /// Whether a verb of this migration succeeded here.
    pub fn succeeded(&self, verb: &str, migration: &MigrationId) -> bool {
        self.finished.iter().any(|done| {
            done.verb == verb
                && done.migration.as_ref() == Some(migration)
                && matches!(done.result, Stored::Outcome(_))
        })
    }
}
