//! Start a migration, watch it, take it back. What can be refused is refused before anything is
//! stopped.

use std::sync::Arc;

use futures::Stream;
use godwit_core::{
    Command, Migration, RecoveredBy, State, find_container, find_migration, migration_view,
};
use godwit_proto::{
    control::{MigrateRequest, MigrationRequest},
    document, failure,
    v1::{Document, Documents},
};
use godwit_types::{InstanceState, MigrationId, MigrationView, Phase, Refusal};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{preflight::preflight, read, run::find_host, status_of};
use crate::{ids, leader::Leader};

/// Between two views that differ only in how pre-copy stands.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);
const CANCELLED: &str = "cancelled by the operator";

pub async fn start(leader: &Arc<Leader>, request: MigrateRequest) -> Result<MigrationId, Status> {
    let state = read(leader).await?;
    let both = find_container(&state, &request.container)
        .and_then(|container| Ok([container.host.clone(), find_host(&state, &request.to)?]));
    if let Ok(both) = both {
        leader.sessions.wait_elected(&both).await;
    }
    let state = read(leader).await?;
    let found = preflight(leader, &state, &request).map_err(failure::refused)?;
    if let Some(refusal) = found.against.into_iter().next() {
        return Err(failure::refused(refusal));
    }
    let id = ids::migration_id();
    let command = Command::StartMigration {
        id: id.clone(),
        container: found.container.id.clone(),
        to: found.to,
        started_ms: ids::now_ms(),
        options: found.options,
        priority: found.priority,
        drain: false,
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(id)
}

/// The migration's view at every change, and a few times a second during pre-copy; the last one
/// is final. It goes on without its watcher.
pub fn watch(
    leader: Arc<Leader>,
    id: MigrationId,
) -> impl Stream<Item = Result<Document, Status>> + Send {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let work = follow(&leader, &id, &sender);
        if leader.scope.run(work).await.is_none() {
            let text = format!("the leader changed; migration {id} goes on");
            let _ = sender.send(Err(Status::unavailable(text))).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn follow(
    leader: &Leader,
    id: &MigrationId,
    sender: &mpsc::Sender<Result<Document, Status>>,
) {
    let mut published = leader.raft.published();
    let mut said = leader.progress.subscribe();
    let mut last = None;
    loop {
        said.mark_unchanged();
        let state = published.borrow_and_update().state.clone();
        let Some(migration) = state.migrations.get(id) else {
            return;
        };
        let view = view_of(leader, &state, migration);
        let last_one = view.phase.is_final();
        if last.as_ref() != Some(&view) {
            if sender.send(Ok(document::write(&view))).await.is_err() {
                return;
            }
            last = Some(view);
        }
        if last_one {
            return;
        }
        let a_moment_later = Instant::now() + PROGRESS_PAUSE;
        let progressed = async {
            sleep_until(a_moment_later).await;
            said.changed().await
        };
        let gone = tokio::select! {
            changed = published.changed() => changed.is_err(),
            changed = progressed => changed.is_err(),
        };
        if gone {
            return;
        }
    }
}

fn view_of(leader: &Leader, state: &State, migration: &Migration) -> MigrationView {
    let problem = leader.sessions.precopy_problem(&migration.from);
    let awaits = (!migration.phase.is_final())
        .then(|| leader.waits.of(&migration.id))
        .flatten();
    let progress = leader.progress.of(migration);
    migration_view(state, migration, progress, problem.as_deref(), awaits)
}

/// Takes a migration back, if it can still be.
pub async fn cancel(leader: &Arc<Leader>, request: MigrationRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let migration = find_migration(&state, &request.migration).map_err(failure::refused)?;
    if migration.drain {
        // First, or the drain would ask for another one at once.
        let note = Command::DrainFailed {
            host: migration.from.clone(),
            container: migration.container.clone(),
            reason: CANCELLED.to_owned(),
            for_good: true,
        };
        leader.raft.propose(&note).await.map_err(status_of)?;
    }
    let command = Command::Abort {
        migration: migration.id.clone(),
        error: CANCELLED.to_owned(),
        failure: None,
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    let state = leader.state();
    let migration = find_migration(&state, migration.id.as_str()).map_err(failure::refused)?;
    Ok(document::write(&view_of(leader, &state, migration)))
}

/// By the operator's word the container goes back to its source after the commit. Harmless when it
/// has already.
pub async fn recover(leader: &Arc<Leader>, request: MigrationRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let migration = find_migration(&state, &request.migration).map_err(failure::refused)?;
    leader
        .sessions
        .wait_elected(std::slice::from_ref(&migration.to))
        .await;
    if migration.recovered.is_none() && migration.phase == Phase::Committed {
        runs_nowhere(leader, migration).map_err(failure::refused)?;
    }
    let command = Command::TakeBack {
        migration: migration.id.clone(),
        by: RecoveredBy::Operator,
        error: format!(
            "recovered by the operator: host `{}` was not heard to have resumed it",
            migration.to
        ),
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    let state = leader.state();
    let migration = find_migration(&state, migration.id.as_str()).map_err(failure::refused)?;
    Ok(document::write(&view_of(leader, &state, migration)))
}

/// Refuses when the destination itself says now that it runs the container, or ran it.
fn runs_nowhere(leader: &Leader, migration: &Migration) -> Result<(), Refusal> {
    let (owner, generation) = migration.owner();
    let reports = leader.sessions.reports();
    let Some((true, report)) = reports.get(owner) else {
        return Ok(());
    };
    let runs = report.instances.iter().any(|instance| {
        instance.container == migration.container
            && instance.generation == generation
            && matches!(
                instance.state,
                InstanceState::Running { .. }
                    | InstanceState::Paused { .. }
                    | InstanceState::Restarting { .. }
                    | InstanceState::Exited { .. }
            )
    });
    if runs {
        return Err(Refusal::RunsThere {
            migration: migration.id.clone(),
            host: owner.clone(),
        });
    }
    Ok(())
}

pub async fn list(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let all = state.migrations.values();
    let mut views: Vec<_> = all
        .map(|migration| view_of(leader, &state, migration))
        .collect();
    views.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then(a.id.cmp(&b.id)));
    Ok(document::write_all(views))
}

pub async fn inspect(leader: &Arc<Leader>, request: MigrationRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let migration = find_migration(&state, &request.migration).map_err(failure::refused)?;
    Ok(document::write(&view_of(leader, &state, migration)))
}
