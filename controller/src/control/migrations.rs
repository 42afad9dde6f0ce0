//! Start a migration and watch it. What can be refused is refused before anything is stopped.

use std::sync::Arc;

use futures::Stream;
use godwit_core::{Command, State, find_container, find_migration, migration_view};
use godwit_proto::{
    control::{MigrateRequest, MigrationRequest},
    document, failure,
    v1::{Document, Documents},
};
use godwit_types::{AgentReport, HostName, MigrationId, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{read, run::find_host, status_of};
use crate::{ids, leader::Leader};

pub async fn start(leader: &Arc<Leader>, request: MigrateRequest) -> Result<MigrationId, Status> {
    let state = read(leader).await?;
    let both = find_container(&state, &request.container)
        .and_then(|container| Ok([container.host.clone(), find_host(&state, &request.to)?]));
    if let Ok(both) = both {
        leader.sessions.wait_elected(&both).await;
    }
    let state = read(leader).await?;
    let container = preflight(leader, &state, &request).map_err(failure::refused)?;
    let id = ids::migration_id();
    let command = Command::StartMigration {
        id: id.clone(),
        container,
        to: find_host(&state, &request.to).map_err(failure::refused)?,
        started_ms: ids::now_ms(),
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(id)
}

/// What the leader can tell from what it knows. The rest of the checks is the hosts', and the
/// state's own are repeated when the command is applied.
fn preflight(
    leader: &Leader,
    state: &State,
    request: &MigrateRequest,
) -> Result<godwit_types::ContainerId, Refusal> {
    let container = find_container(state, &request.container)?;
    let to = find_host(state, &request.to)?;
    let name = || container.spec.name.clone();
    if let Some(migration) = container
        .migration
        .as_ref()
        .and_then(|id| state.migrations.get(id))
    {
        return Err(Refusal::Migrating {
            name: name(),
            migration: migration.id.clone(),
            phase: migration.phase,
        });
    }
    if container.host == to {
        return Err(Refusal::AlreadyThere {
            name: name(),
            host: to,
        });
    }
    if container.status != godwit_types::Status::Running {
        return Err(Refusal::NotRunning {
            name: name(),
            status: container.status.to_string(),
        });
    }
    let mut reports = leader.sessions.reports();
    let mut live = |host: &HostName| match reports.remove(host) {
        Some((true, report)) => Ok(report),
        _ => Err(Refusal::HostDown { host: host.clone() }),
    };
    let source = live(&container.host)?;
    let destination = live(&to)?;
    for (host, report) in [(&container.host, &source), (&to, &destination)] {
        if let Some(problem) = &report.facts.criu_problem {
            return Err(Refusal::NoCriu {
                host: host.clone(),
                problem: problem.clone(),
            });
        }
    }
    same_machine(&to, &source, &destination)?;
    let has = destination
        .images
        .iter()
        .any(|image| image.id == container.spec.image_id);
    if !has {
        return Err(Refusal::ImageMissing {
            host: to,
            image: container.spec.image.to_string(),
        });
    }
    Ok(container.id.clone())
}

fn same_machine(to: &HostName, source: &AgentReport, there: &AgentReport) -> Result<(), Refusal> {
    let (from, there) = (&source.facts.arch, &there.facts.arch);
    if from == there {
        Ok(())
    } else {
        Err(Refusal::Invalid {
            what: to.to_string(),
            problem: format!("its processor is {there}, the container runs on {from}"),
        })
    }
}

/// The migration's view at every change, the last one final. It goes on without its watcher.
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
    let mut last = None;
    loop {
        let state = published.borrow_and_update().state.clone();
        let Some(migration) = state.migrations.get(id) else {
            return;
        };
        let view = migration_view(migration);
        let last_one = view.phase.is_final();
        if last.as_ref() != Some(&view) {
            if sender.send(Ok(document::write(&view))).await.is_err() {
                return;
            }
            last = Some(view);
        }
        if last_one || published.changed().await.is_err() {
            return;
        }
    }
}

pub async fn list(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let mut views: Vec<_> = state.migrations.values().map(migration_view).collect();
    views.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then(a.id.cmp(&b.id)));
    Ok(document::write_all(views))
}

pub async fn inspect(leader: &Arc<Leader>, request: MigrationRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let migration = find_migration(&state, &request.migration).map_err(failure::refused)?;
    Ok(document::write(&migration_view(migration)))
}
