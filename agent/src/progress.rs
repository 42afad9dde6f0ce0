//! How pre-copy stands, on its way to the leader: the latest word of each migration, and no more
//! often than a person can read.
//!
//! Nothing here is kept: what finds no session is replaced by what comes after it.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use godwit_types::{MigrationId, Progress, ProgressReport};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Between two words on the same session.
pub const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    latest: Mutex<BTreeMap<MigrationId, Progress>>,
    changes: watch::Sender<u64>,
}

impl ProgressBoard {
    /// To be called as often as there is something to say.
    pub fn tell(&self, migration: &MigrationId, progress: Progress) {
        let mut latest = self.latest.lock().expect("no holder panics");
        latest.insert(migration.clone(), progress);
        drop(latest);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Its pre-copy is over: the answer says the rest.
    pub fn forget(&self, migration: &MigrationId) {
        let mut latest = self.latest.lock().expect("no holder panics");
        latest.remove(migration);
    }

    /// Waits for news, and at least until `not_before`. May be dropped at any time.
    pub async fn next(&self, not_before: Instant) -> ProgressReport {
        let mut changes = self.changes.subscribe();
        sleep_until(not_before).await;
        loop {
            let first = self.latest.lock().expect("no holder panics").pop_first();
            if let Some((migration, progress)) = first {
                return ProgressReport {
                    migration,
                    progress,
                };
            }
            changes.changed().await.expect("the sender is ours");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(round: u32) -> Progress {
        Progress {
            round,
            ..Progress::default()
        }
    }

    #[tokio::test]
    async fn only_the_latest_word_goes_out_and_not_too_soon() {
        let board = ProgressBoard::default();
        let (one, other) = (
            MigrationId::from_bytes([1; 8]),
            MigrationId::from_bytes([2; 8]),
        );
        board.tell(&one, round(1));
        board.tell(&one, round(2));
        board.tell(&other, round(7));
        board.forget(&other);
        let began = Instant::now();
        let said = board.next(began + Duration::from_millis(20)).await;
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!((said.migration, said.progress), (one.clone(), round(2)));
        // Nothing more is to be said until something is.
        let (said, ()) = tokio::join!(board.next(began), async {
            tokio::task::yield_now().await;
            board.tell(&one, round(3));
        });
        assert_eq!(said.progress, round(3));
    }
}
