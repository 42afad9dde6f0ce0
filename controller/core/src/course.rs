//! One leader's way along the table for one migration: what it holds ahead of the stored state,
//! and what an answer leads to.
//!
//! Between the last round and the commit every message counts, since the container writes again
//! what was sent: `PreCopy`, `Frozen` and `Transferred` are proposed and not awaited. Their undo is
//! the same, and `Reserved`, which is on the disk by then, already says that it may be needed.
//! `Staged` is written together with the commit, which is awaited; so is an abort, before anything
//! is undone.

use godwit_types::{FailureKind, MAX_ROUNDS, MigrationId, Need, Outcome, Phase};

use crate::{
    command::{Command, Record},
    phase::Act,
    state::{Migration, RecoveredBy, State},
    step::{Memory, Step, next_step},
};

/// See the module.
#[derive(Debug, Clone)]
pub struct Course {
    /// May be some phases ahead of the stored one.
    migration: Migration,
    memory: Memory,
    /// `Staged`, to be written with the commit.
    staged: Option<Command>,
}

/// What an answer before the commit leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// Nothing, or nothing yet.
    Not,
    /// To be proposed and not awaited.
    Detached(Command),
    /// To be proposed, awaited, and then [noted](Course::note).
    Awaited(Phase, Record),
}

impl Course {
    /// From the stored migration on.
    pub fn new(migration: Migration) -> Self {
        Self {
            migration,
            memory: Memory::default(),
            staged: None,
        }
    }

    pub fn migration(&self) -> &Migration {
        &self.migration
    }

    /// What comes next.
    pub fn step(&self, state: &State) -> Step {
        next_step(state, &self.migration, &self.memory)
    }

    /// Whether the stored migration was taken back while this one went on.
    pub fn look(&mut self, state: &State) -> bool {
        let stored = state.migrations.get(&self.migration.id);
        let news = stored.is_some_and(|stored| stored.phase == Phase::Aborting)
            && self.migration.phase != Phase::Aborting;
        if news {
            self.migration.recovered = stored.and_then(|stored| stored.recovered);
            self.note(Phase::Aborting, &Record::default());
        }
        news
    }

    /// This phase is stored, or will be.
    pub fn note(&mut self, phase: Phase, record: &Record) {
        self.migration.phase = phase;
        self.memory.attempt = 0;
        if record.freeze_started_ms.is_some() {
            self.migration.freeze_started_ms = record.freeze_started_ms;
        }
    }

    /// Before the commit: a host did `act`. `record`: what the leader itself has to tell.
    pub fn answered(
        &mut self,
        act: Act,
        reaches: Option<Phase>,
        outcome: Outcome,
        mut record: Record,
    ) -> Written {
        match outcome {
            Outcome::Checked { need: disk, memory } => {
                self.memory.need = Some(Need { disk, memory });
            }
            Outcome::PreCopied {
                rounds,
                bytes,
                predicted_freeze_us,
            } => {
                record.rounds = rounds;
                record.rounds.truncate(MAX_ROUNDS);
                record.bytes = bytes;
                record.predicted_freeze_us = predicted_freeze_us;
            }
            Outcome::Frozen { steps } | Outcome::Staged { steps } => record.steps = steps,
            Outcome::Transferred { bytes, steps } => {
                record.steps = steps;
                record.bytes = bytes;
            }
            _ => {}
        }
        if act == Act::CheckSource && self.memory.need.is_none() {
            self.memory.need = Some(Need::default());
        }
        match reaches {
            Some(phase @ (Phase::PreCopy | Phase::Frozen | Phase::Transferred | Phase::Staged)) => {
                self.note(phase, &record);
                let command = self.advance(phase, record);
                if phase == Phase::Staged {
                    self.staged = Some(command);
                    Written::Not
                } else {
                    Written::Detached(command)
                }
            }
            Some(phase) => Written::Awaited(phase, record),
            None => Written::Not,
        }
    }

    /// The command that stores a phase.
    pub fn advance(&self, to: Phase, record: Record) -> Command {
        Command::Advance {
            migration: self.migration.id.clone(),
            to,
            record,
        }
    }

    /// What commits, in one write.
    pub fn commit(&mut self) -> Vec<Command> {
        let commit = self.advance(Phase::Committed, Record::default());
        self.staged.take().into_iter().chain([commit]).collect()
    }

    /// The command that takes it back.
    pub fn abort(&self, error: String, failure: Option<FailureKind>) -> Command {
        Command::Abort {
            migration: self.id().clone(),
            error,
            failure,
        }
    }

    /// The command that makes the source the owner again after the commit.
    pub fn take_back(&self, by: RecoveredBy, error: String) -> Command {
        Command::TakeBack {
            migration: self.id().clone(),
            by,
            error,
        }
    }

    fn id(&self) -> &MigrationId {
        &self.migration.id
    }
}

/// Whether a host that answered so has nothing left to do `act` with: no undo, no way forward
/// needs it to be asked again.
pub fn nothing_left(act: Act, failure: FailureKind) -> bool {
    match failure {
        FailureKind::NotFound => act != Act::Resume,
        FailureKind::WrongState | FailureKind::Stale => {
            matches!(act, Act::Thaw | Act::Discard)
        }
        _ => false,
    }
}
