//! One host: the agent's task of the container, after `agent::container::task`, and what the
//! agent's restart keeps. Admission, effects and the record are the agent's own.

use std::sync::Arc;

use godwit_agent::{
    container::{
        admission::{self, Admission, Meanwhile},
        effect,
    },
    ledger::{Answer, Record, Role},
};
use godwit_types::{AgentCommand, FailureKind, InstanceState, MigrationId};

use crate::{
    instance::{Door, Instance},
    kept::Kept,
    message::{Reply, failure},
};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// The ledger.
    pub disk: Kept<Record>,
    /// What the agent knows; the disk may lag behind where [`effect::may_wait`] lets it.
    pub memory: Kept<Record>,
    /// What is being done.
    pub work: Option<Work>,
    /// Answers of commands that were interrupted; they wait for the record that holds them.
    pub unanswered: Vec<Reply>,
    pub instance: Instance,
    /// The source's end of a pre-copy, in its agent's memory.
    pub flow: bool,
    pub door: Door,
}

/// A command that was admitted and has not ended.
#[derive(Debug, Clone)]
pub struct Work {
    pub command: Arc<AgentCommand>,
    /// Its peer was restarted meanwhile.
    pub broken: bool,
}

impl PartialEq for Work {
    fn eq(&self, other: &Self) -> bool {
        self.command.operation == other.command.operation && self.broken == other.broken
    }
}

impl Eq for Work {}

impl std::hash::Hash for Work {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.command.operation.hash(state);
        self.broken.hash(state);
    }
}

impl Host {
    pub fn new(record: Record, instance: Instance) -> Self {
        let record = Kept::new(record);
        Self {
            disk: record.clone(),
            memory: record,
            work: None,
            unanswered: Vec::new(),
            instance,
            flow: false,
            door: Door::Closed,
        }
    }

    fn known(&self) -> Option<InstanceState> {
        // Without a record it is not ours, whatever is there.
        self.memory.generation()?;
        self.instance.known()
    }

    /// The migration that is expected here.
    pub fn awaits(&self) -> Option<&MigrationId> {
        match &self.memory.role {
            Role::Incoming { migration, .. } => Some(migration),
            _ => None,
        }
    }

    /// What becomes of a command that arrives now.
    pub fn meanwhile(&self, next: &AgentCommand) -> Option<Meanwhile> {
        let work = self.work.as_ref()?;
        let known = self.known();
        Some(admission::meanwhile(
            &self.memory,
            known.as_ref(),
            &work.command,
            next,
        ))
    }

    /// Takes up a command while nothing else is being done. Answers what is sent at once.
    pub fn handle(&mut self, command: &Arc<AgentCommand>) -> Vec<Reply> {
        let known = self.known();
        match admission::admit(&self.memory, known.as_ref(), command) {
            Admission::Again(answer) => vec![reply(command, answer)],
            Admission::Refuse(failure) => vec![reply(command, Err(failure))],
            Admission::Already(outcome) => self.settle(command, Ok(outcome)),
            Admission::Perform => {
                if let Some(intent) = effect::begin(&self.memory, command) {
                    self.store(intent);
                }
                self.work = Some(Work {
                    command: command.clone(),
                    broken: false,
                });
                Vec::new()
            }
        }
    }

    /// What is being done is dropped for its undo, which is taken up.
    pub fn interrupt(&mut self, undo: &Arc<AgentCommand>) -> Vec<Reply> {
        let Some(work) = self.work.take() else {
            return Vec::new();
        };
        let by = format!("interrupted by {}", undo.verb.name());
        let answer = Err(failure(FailureKind::WrongState, &by));
        self.memory = Kept::new(effect::conclude(&self.memory, &work.command, &answer, 0));
        self.unanswered.push(reply(&work.command, answer));
        self.handle(undo)
    }

    /// Remembers and answers.
    pub fn settle(&mut self, command: &AgentCommand, answer: Answer) -> Vec<Reply> {
        let concluded = Kept::new(effect::conclude(&self.memory, command, &answer, 0));
        if concluded != self.memory || !self.unanswered.is_empty() {
            let waits = self.unanswered.is_empty() && effect::may_wait(&command.verb, &answer);
            self.memory = concluded;
            if !waits {
                self.disk = self.memory.clone();
            }
        }
        let mut replies = std::mem::take(&mut self.unanswered);
        replies.push(reply(command, answer));
        replies
    }

    fn store(&mut self, record: Record) {
        self.memory = Kept::new(record);
        self.disk = self.memory.clone();
    }

    /// The agent ends and begins anew. `written`: what could wait was on the disk just in time.
    pub fn restart(&mut self, written: bool) {
        if written {
            self.disk = self.memory.clone();
        }
        self.work = None;
        self.unanswered.clear();
        self.flow = false;
        self.door = Door::Closed;
        self.memory = self.disk.clone();
        // An instance that is not there is not found; its record is read when it is asked for.
        let Some(state) = self.instance.known() else {
            return;
        };
        let found = effect::found(&self.memory, &state);
        if found != *self.memory {
            self.memory = Kept::new(found);
        }
        if let Role::Incoming { migration, .. } = &self.memory.role
            && !self.memory.succeeded("stage", migration)
            && matches!(state, InstanceState::Staged { .. })
        {
            self.door = Door::Open { rounds: false };
        }
    }
}

fn reply(command: &AgentCommand, answer: Answer) -> Reply {
    Reply {
        operation: command.operation.clone(),
        answer,
    }
}
