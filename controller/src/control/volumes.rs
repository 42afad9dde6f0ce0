//! Volumes by themselves: make, list, inspect, remove, prune.

use std::{collections::BTreeMap, sync::Arc};

use godwit_core::{Command, Volume, find_volume, users, volume_view};
use godwit_proto::{
    control::{CreateVolumeRequest, PruneVolumesRequest, VolumeRequest},
    document, failure,
    v1::{Document, Documents, Empty},
};
use godwit_types::{ContainerId, Refusal, VolumeName};
use tonic::Status;

use super::{invalid, job_status, read, run::find_host, status_of};
use crate::{
    ids,
    leader::{Job, JobError, Leader},
};

/// Labels of one volume, and bytes of one of them.
const MAX_LABELS: usize = 128;
const MAX_LABEL: usize = 4096;

pub async fn create(
    leader: &Arc<Leader>,
    request: CreateVolumeRequest,
) -> Result<Document, Status> {
    let state = read(leader).await?;
    let id = ids::volume_id();
    let (name, anonymous) = match request.name.as_str() {
        "" => (ids::container_id().to_string(), true),
        text => (text.to_owned(), false),
    };
    let name = VolumeName::new(name).map_err(|reason| invalid(&request.name, reason))?;
    let host = match request.host.as_str() {
        "" => None,
        text => Some(find_host(&state, text).map_err(failure::refused)?),
    };
    let volume = Volume {
        name: name.clone(),
        id,
        host,
        labels: labels(request.labels)?,
        anonymous,
        created_ms: ids::now_ms(),
        removing: false,
    };
    let command = Command::CreateVolume(Box::new(volume));
    leader.raft.propose(&command).await.map_err(status_of)?;
    view_of(leader, name.as_str())
}

fn labels(asked: Vec<String>) -> Result<BTreeMap<String, String>, Status> {
    if asked.len() > MAX_LABELS {
        let what = format!("{} labels", asked.len());
        return Err(invalid(&what, format!("a volume has at most {MAX_LABELS}")));
    }
    let mut labels = BTreeMap::new();
    for label in asked {
        let (key, value) = label.split_once('=').unwrap_or((&label, ""));
        if key.is_empty() || label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(invalid(
                &label,
                "a label is `KEY` or `KEY=value` on one line",
            ));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn view_of(leader: &Leader, name: &str) -> Result<Document, Status> {
    let state = leader.state();
    let volume = find_volume(&state, name).map_err(failure::refused)?;
    Ok(document::write(&volume_view(&state, volume)))
}

pub async fn list(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let views = state
        .volumes
        .values()
        .map(|volume| volume_view(&state, volume));
    Ok(document::write_all(views))
}

pub async fn inspect(leader: &Arc<Leader>, request: VolumeRequest) -> Result<Document, Status> {
    read(leader).await?;
    view_of(leader, &request.volume)
}

pub async fn remove(leader: &Arc<Leader>, request: VolumeRequest) -> Result<Empty, Status> {
    let state = read(leader).await?;
    let volume = find_volume(&state, &request.volume).map_err(failure::refused)?;
    remove_one(leader, volume).await?;
    Ok(Empty {})
}

async fn remove_one(leader: &Arc<Leader>, volume: &Volume) -> Result<(), Status> {
    if let Some(host) = &volume.host
        && !leader.sessions.is_up(host)
    {
        return Err(failure::refused(Refusal::HostDown { host: host.clone() }));
    }
    let done = leader.jobs.wait(Job::RemoveVolume(volume.name.clone()));
    let command = Command::BeginRemoveVolume {
        volume: volume.name.clone(),
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    // Without a host there was nothing to remove.
    if volume.host.is_some() {
        let result = done.await.unwrap_or(Err(JobError::Lost));
        result.map_err(job_status)?;
    }
    Ok(())
}

/// Removes what nobody uses: only those that nobody named, unless `all`. Answers the views of what
/// is gone.
pub async fn prune(
    leader: &Arc<Leader>,
    request: PruneVolumesRequest,
) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let mut gone = Vec::new();
    let unused = state.volumes.values().filter(|volume| {
        (request.all || volume.anonymous)
            && !volume.removing
            && users(&state, &volume.name).next().is_none()
    });
    for volume in unused {
        // One whose host is away, or that was taken into use meanwhile, stays.
        if remove_one(leader, volume).await.is_ok() {
            gone.push(volume_view(&state, volume));
        }
    }
    Ok(document::write_all(gone))
}

/// Waits until the volumes that went with a container are gone, too.
pub async fn gone_with(leader: &Arc<Leader>, container: &ContainerId, volumes: Vec<VolumeName>) {
    for name in volumes {
        let done = leader.jobs.wait(Job::RemoveVolume(name.clone()));
        let state = leader.state();
        let going = state
            .volumes
            .get(&name)
            .is_some_and(|volume| volume.removing);
        if going && !state.containers.contains_key(container) {
            let _ = done.await;
        }
    }
}
