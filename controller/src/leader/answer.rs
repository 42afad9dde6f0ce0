//! Waiting for a host's answer to an act before the commit: until it comes, the time is up, or
//! somebody takes the migration back.

use std::{sync::Arc, time::Duration};

use godwit_core::{Act, Ask, Migration};
use godwit_types::{FailureKind, MigrationId, Outcome, Phase};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Leader, progress::Progresses, sessions::AskError};
use crate::ids;

/// An act that takes longer has failed; pre-copy, when it says nothing for so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Outcome(Outcome),
    Failed {
        reason: String,
        kind: Option<FailureKind>,
    },
    /// `Aborting` is stored already. The host may still be at it.
    TakenBack,
}

/// Asks and waits.
pub async fn answer(leader: &Arc<Leader>, migration: &Migration, ask: Ask) -> Heard {
    let what = ask.command.verb.name();
    let host = &ask.host;
    let failed = |reason: String, kind| Heard::Failed { reason, kind };
    let late = async {
        if ask.act != Act::PreCopy {
            sleep(PATIENCE).await;
            return format!("no answer in {} s", PATIENCE.as_secs());
        }
        tokio::select! {
            () = silence(&leader.progress, &migration.id, PATIENCE) => {
                format!("no word in {} s", PATIENCE.as_secs())
            }
            limit = timeout(migration) => format!("not done {limit} ms after the request"),
        }
    };
    let mut published = leader.raft.published();
    let taken_back = published.wait_for(|published| {
        let stored = published.state.migrations.get(&migration.id);
        stored.is_some_and(|stored| stored.phase == Phase::Aborting)
    });
    tokio::select! {
        biased;
        reply = leader.sessions.ask(host, ask.command) => match reply {
            Ok(outcome) => Heard::Outcome(outcome),
            Err(AskError::Failed(failure)) => failed(
                // The message names the host.
                format!("{what}: {}", failure.message),
                Some(failure.kind),
            ),
            Err(down @ AskError::HostDown(_)) => failed(format!("{what}: {down}"), None),
        },
        // An error says that the member stops: its lead and this work end with it.
        _ = taken_back => Heard::TakenBack,
        reason = late => failed(format!("{what} on host `{host}`: {reason}"), None),
    }
}

/// Ends when the source has said nothing for too long.
async fn silence(progress: &Progresses, migration: &MigrationId, patience: Duration) {
    let began = Instant::now();
    loop {
        let heard = progress.heard(migration).unwrap_or(began).max(began);
        sleep_until(heard + patience).await;
        if progress.heard(migration).is_none_or(|now| now <= heard) {
            return;
        }
    }
}

/// Ends when the migration's own limit is over, and answers it.
async fn timeout(migration: &Migration) -> u64 {
    let Some(limit) = migration.options.timeout_ms else {
        return std::future::pending().await;
    };
    let end = migration.started_ms.saturating_add(limit);
    sleep(Duration::from_millis(end.saturating_sub(ids::now_ms()))).await;
    limit
}

#[cfg(test)]
mod tests {
    use godwit_types::{Progress, ProgressReport};

    use super::*;

    #[tokio::test]
    async fn only_a_source_that_says_nothing_is_given_up() {
        let progress = Progresses::default();
        let id = MigrationId::from_bytes([1; 8]);
        let patience = Duration::from_millis(200);
        let began = Instant::now();
        let speaks = async {
            for _ in 0..4 {
                sleep(patience / 2).await;
                progress.keep(ProgressReport {
                    migration: id.clone(),
                    progress: Progress::default(),
                });
            }
        };
        tokio::join!(silence(&progress, &id, patience), speaks);
        assert!(began.elapsed() >= patience * 3);
    }
}
