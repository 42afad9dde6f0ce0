//! Inspect, stop and remove.

use std::sync::Arc;

use godwit_core::{Command, container_view, find_container};
use godwit_proto::{
    control::{ContainerRequest, RemoveRequest, StopRequest},
    document, failure,
    v1::{Document, Empty},
};
use godwit_types::{ContainerId, HostName, Refusal, Status as ContainerStatus};
use tonic::Status;

use super::{job_status, orders::grace_ms, read, status_of, volumes::gone_with};
use crate::{
    leader::{Job, JobError, Leader},
    raft::ProposeError,
};

/// The view of a container as this leader has it now.
pub fn view_of(leader: &Leader, id: &ContainerId) -> Result<Document, Status> {
    let state = leader.state();
    let container = find_container(&state, id.as_str()).map_err(failure::refused)?;
    let up = leader.sessions.is_up(&container.host);
    Ok(document::write(&container_view(container, up)))
}

pub async fn inspect(leader: &Arc<Leader>, request: ContainerRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    view_of(leader, &container.id)
}

pub(super) fn require_up(leader: &Leader, host: &HostName) -> Result<(), Status> {
    if leader.sessions.is_up(host) {
        Ok(())
    } else {
        Err(failure::refused(Refusal::HostDown { host: host.clone() }))
    }
}

pub async fn stop(leader: &Arc<Leader>, request: StopRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    let id = container.id.clone();
    let ended = matches!(
        container.status,
        ContainerStatus::Created | ContainerStatus::Exited { .. } | ContainerStatus::Failed { .. }
    );
    let grace_ms = grace_ms(&request, container);
    if ended && container.migration.is_none() {
        return view_of(leader, &id);
    }
    require_up(leader, &container.host)?;
    let done = leader.jobs.wait(Job::Stop(id.clone()));
    let command = Command::BeginStop {
        container: id.clone(),
        grace_ms,
    };
    match leader.raft.propose(&command).await {
        Ok(_) => {}
        // It ended on its own meanwhile: that is what was asked for.
        Err(ProposeError::Refused(Refusal::NotRunning { .. }))
            if leader
                .state()
                .containers
                .get(&id)
                .is_some_and(|c| matches!(c.status, ContainerStatus::Exited { .. })) =>
        {
            return view_of(leader, &id);
        }
        Err(error) => return Err(status_of(error)),
    }
    let result = done.await.unwrap_or(Err(JobError::Lost));
    result.map_err(job_status)?;
    view_of(leader, &id)
}

pub async fn remove(leader: &Arc<Leader>, request: RemoveRequest) -> Result<Empty, Status> {
    let state = read(leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    let id = container.id.clone();
    require_up(leader, &container.host)?;
    let volumes = container.volumes().filter(|volume| volume.anonymous);
    let volumes = volumes.map(|volume| volume.name.clone()).collect();
    let done = leader.jobs.wait(Job::Remove(id.clone()));
    let command = Command::BeginRemove {
        container: id.clone(),
        force: request.force,
        volumes: request.volumes,
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    let result = done.await.unwrap_or(Err(JobError::Lost));
    result.map_err(job_status)?;
    if request.volumes {
        gone_with(leader, &id, volumes).await;
    }
    Ok(Empty {})
}
