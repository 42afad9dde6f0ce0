//! How pre-copies and post-copies stand, as their sources said last. Only in this leader's memory: the next
//! leader hears it again.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use godwit_core::{Migration, State};
use godwit_types::{HostName, MigrationId, Phase, Progress, ProgressReport};
use tokio::{sync::watch, time::Instant};

/// Phases in which a source says how far it is.
fn sends(phase: Phase) -> bool {
    matches!(phase, Phase::Reserved | Phase::Resumed)
}

/// See the module.
#[derive(Default)]
pub struct Progresses {
    latest: Mutex<BTreeMap<MigrationId, (Progress, Instant)>>,
    said: watch::Sender<u64>,
}

impl Progresses {
    fn latest(&self) -> MutexGuard<'_, BTreeMap<MigrationId, (Progress, Instant)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a source's word. One that is late, or not the source, is not heard.
    pub fn hear(&self, state: &State, host: &HostName, report: ProgressReport) {
        let known = state.migrations.get(&report.migration);
        if !known.is_some_and(|m| sends(m.phase) && m.from == *host) {
            return;
        }
        self.keep(report);
    }

    pub(super) fn keep(&self, report: ProgressReport) {
        let word = (report.progress, Instant::now());
        self.latest().insert(report.migration, word);
        self.said.send_modify(|count| *count += 1);
    }

    /// How this migration stands, None when it is not at it: a late word must not be shown beside
    /// a later phase.
    pub fn of(&self, migration: &Migration) -> Option<Progress> {
        let latest = self.latest();
        let word = latest.get(&migration.id).filter(|_| sends(migration.phase));
        word.map(|(progress, _)| progress.clone())
    }

    /// When its source was heard last.
    pub fn heard(&self, migration: &MigrationId) -> Option<Instant> {
        self.latest().get(migration).map(|(_, at)| *at)
    }

    /// Its rounds are over, one way or the other.
    pub fn forget(&self, migration: &MigrationId) {
        self.latest().remove(migration);
    }

    /// Changes with every word of any source.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.said.subscribe()
    }
}
