//! What is left to do once a recovered migration has ended without its destination: that one is
//! told to end what it has, whenever it is in contact again.

use std::{sync::Arc, time::Duration};

use godwit_core::{Command, clearing, nothing_left, operation};
use godwit_types::MigrationId;
use tracing::{info, warn};

use super::{Leader, sessions::AskError};

const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub(super) async fn clear(leader: &Arc<Leader>, id: &MigrationId) {
    let state = leader.state();
    let migration = state.migrations.get(id);
    let Some(mut ask) = migration.and_then(|migration| clearing(&state, migration)) else {
        return;
    };
    let mut backoff = BACKOFF;
    let mut attempt = 0;
    loop {
        match leader.sessions.ask(&ask.host, ask.command.clone()).await {
            Ok(_) => break,
            Err(AskError::HostDown(host)) => leader.sessions.wait_up(&host).await,
            Err(AskError::Failed(failure)) if nothing_left(ask.act, failure.kind) => break,
            Err(AskError::Failed(failure)) => {
                warn!(migration = %id, host = %ask.host, error = %failure.message,
                    "what is left of a recovered migration is not discarded yet");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                attempt += 1;
                ask.command.operation = operation(id, ask.act, attempt);
            }
        }
    }
    let migration = id.clone();
    match leader.raft.propose(&Command::Cleared { migration }).await {
        Ok(_) => info!(migration = %id, host = %ask.host, "nothing is left of it"),
        Err(reason) => warn!(migration = %id, %reason, "not written"),
    }
}
