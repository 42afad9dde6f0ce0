//! The leader's work on one migration, after `controller`'s `leader::migration`: it waits,
//! repeats, gives up and insists. What comes next is the core's.

use godwit_core::{Act, Memory, State, Step, next_step};
use godwit_types::{FailureKind, MigrationId, Need, Phase};

use crate::message::Sent;

/// In the memory of one leader. The next one begins with what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Drive {
    pub migration: MigrationId,
    /// May be some phases ahead of the stored one.
    pub phase: Phase,
    /// What the source needs was answered.
    need: bool,
    /// `Staged` is to be written with the commit.
    pub staged: bool,
    pub pending: Vec<Pending>,
    /// Proposed and not awaited: an election may lose the last of them.
    pub detached: Vec<Phase>,
}

/// A command whose answer is awaited.
#[derive(Debug, Clone)]
pub struct Pending {
    pub act: Act,
    pub attempt: u32,
    pub reaches: Option<Phase>,
    pub sent: Sent,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.sent == other.sent
    }
}

impl Eq for Pending {}

impl std::hash::Hash for Pending {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.sent.hash(state);
    }
}

impl Pending {
    pub fn new(ask: godwit_core::Ask, reaches: Option<Phase>) -> Self {
        Self {
            act: ask.act,
            attempt: 0,
            reaches,
            sent: Sent::new(ask),
        }
    }
}

impl Drive {
    /// What a leader that has just been elected finds.
    pub fn of(state: &State) -> Option<Self> {
        let migration = state.active_migrations().next()?;
        Some(Self {
            migration: migration.id.clone(),
            phase: migration.phase,
            need: false,
            staged: false,
            pending: Vec::new(),
            detached: Vec::new(),
        })
    }

    pub fn next(&self, state: &State) -> Step {
        let Some(mut migration) = state.migrations.get(&self.migration).cloned() else {
            return Step::Finished;
        };
        migration.phase = self.phase;
        let memory = Memory {
            need: self.need.then(Need::default),
            attempt: 0,
        };
        next_step(state, &migration, &memory)
    }

    /// Whether the stored migration was taken back while this one went on.
    pub fn look(&mut self, state: &State) -> bool {
        let stored = state.migrations.get(&self.migration).map(|m| m.phase);
        let news = stored == Some(Phase::Aborting) && self.phase != Phase::Aborting;
        if news {
            self.phase = Phase::Aborting;
            self.pending.clear();
        }
        news
    }

    /// Whether a failure is answered by asking again.
    pub fn insists(&self) -> bool {
        self.phase.is_committed() || self.phase == Phase::Aborting
    }

    pub fn checked(&mut self) {
        self.need = true;
    }
}

/// Whether an act that is insisted on has nothing left to do, by its failure.
pub fn nothing_to_do(act: Act, kind: FailureKind) -> bool {
    match kind {
        FailureKind::NotFound => act != Act::Resume,
        FailureKind::WrongState | FailureKind::Stale => matches!(act, Act::Thaw | Act::Discard),
        _ => false,
    }
}
