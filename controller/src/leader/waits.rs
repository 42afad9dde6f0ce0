//! What migrations wait for that did not succeed at once, in words for whoever asks. In the leader's
//! memory alone: the next one finds out by itself.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use godwit_types::MigrationId;

#[derive(Default)]
pub struct Waits(Mutex<BTreeMap<MigrationId, String>>);

impl Waits {
    fn all(&self) -> MutexGuard<'_, BTreeMap<MigrationId, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn keep(&self, migration: &MigrationId, what: String) {
        self.all().insert(migration.clone(), what);
    }

    pub fn forget(&self, migration: &MigrationId) {
        self.all().remove(migration);
    }

    pub fn of(&self, migration: &MigrationId) -> Option<String> {
        self.all().get(migration).cloned()
    }
}
