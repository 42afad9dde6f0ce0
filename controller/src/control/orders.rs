//! Start, restart, kill, pause, rename, update and wait: what people ask of containers that are
//! there.

use std::sync::Arc;

use godwit_core::{Command, Container, find_container};
use godwit_proto::{
    control::{
        ContainerRequest, KillRequest, LabelHostRequest, PauseRequest, RenameRequest, StopRequest,
        UpdateRequest,
    },
    document, failure,
    v1::{Document, Empty},
};
use godwit_types::{
    AgentCommand, ContainerId, ContainerName, Exit, LimitsChange, Refusal, Signal,
    Status as ContainerStatus, Verb, parse_label,
};
use tonic::Status;

use super::{
    containers::{require_up, view_of},
    invalid, job_status, read,
    run::find_host,
    status_of,
};
use crate::{
    ids,
    leader::{AskError, Job, JobError, Leader},
    raft::ProposeError,
};

async fn find(leader: &Arc<Leader>, text: &str) -> Result<Container, Status> {
    let state = read(leader).await?;
    let container = find_container(&state, text).map_err(failure::refused)?;
    Ok(container.clone())
}

/// The grace period: what is asked for, or the container's own.
pub fn grace_ms(request: &StopRequest, container: &Container) -> u64 {
    const DEFAULT_S: u32 = 10;
    if request.own_grace {
        let own = container.spec.options.process.stop_timeout;
        u64::from(own.unwrap_or(DEFAULT_S)) * 1000
    } else {
        request.grace_ms
    }
}

/// Proposes, and waits for the job that follows. `Unchanged` is no job: it is so already.
async fn order(
    leader: &Arc<Leader>,
    container: &Container,
    command: Command,
    job: Job,
) -> Result<(), Status> {
    require_up(leader, &container.host)?;
    let done = leader.jobs.wait(job.clone());
    leader.raft.propose(&command).await.map_err(status_of)?;
    if !godwit_core::due(&leader.state()).contains(&job) {
        return Ok(());
    }
    let result = done.await.unwrap_or(Err(JobError::Lost));
    result.map_err(|error| match error {
        JobError::Failed(found) => failure::failed(found),
        other => job_status(other),
    })
}

pub async fn start(leader: &Arc<Leader>, request: ContainerRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let id = container.id.clone();
    let command = Command::BeginStart {
        container: id.clone(),
    };
    order(leader, &container, command, Job::Start(id.clone())).await?;
    view_of(leader, &id)
}

pub async fn restart(leader: &Arc<Leader>, request: StopRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let id = container.id.clone();
    let command = Command::BeginRestart {
        container: id.clone(),
        grace_ms: grace_ms(&request, &container),
    };
    let running = matches!(
        container.status,
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting { .. }
    );
    // The waiter of the second half is there before the first begins.
    let started = leader.jobs.wait(Job::Start(id.clone()));
    if running {
        order(leader, &container, command, Job::Stop(id.clone())).await?;
    } else {
        require_up(leader, &container.host)?;
        leader.raft.propose(&command).await.map_err(status_of)?;
    }
    let starting = leader.state().containers.get(&id).is_some_and(|c| {
        matches!(c.status, ContainerStatus::Starting { .. })
            || matches!(c.desired, godwit_core::Desired::Restarted { .. })
    });
    if starting {
        let result = started.await.unwrap_or(Err(JobError::Lost));
        result.map_err(job_status)?;
    }
    view_of(leader, &id)
}

pub async fn pause(leader: &Arc<Leader>, request: PauseRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let id = container.id.clone();
    let command = Command::BeginPause {
        container: id.clone(),
        pause: request.pause,
    };
    order(leader, &container, command, Job::Pause(id.clone())).await?;
    view_of(leader, &id)
}

/// Refuses while the container is moved: its host may be freezing it this moment.
fn settled(leader: &Leader, id: &ContainerId) -> Result<(), Status> {
    let state = leader.state();
    let container = state.containers.get(id);
    let migration = container
        .and_then(|container| container.migration.as_ref())
        .and_then(|id| state.migrations.get(id));
    match migration {
        Some(migration) => Err(failure::refused(Refusal::Migrating {
            name: migration.name.clone(),
            migration: migration.id.clone(),
            phase: migration.phase,
        })),
        None => Ok(()),
    }
}

async fn ask(leader: &Arc<Leader>, container: &Container, verb: Verb) -> Result<(), Status> {
    let command = AgentCommand {
        operation: ids::operation_id(),
        verb,
    };
    match leader.sessions.ask(&container.host, command).await {
        Ok(_) => Ok(()),
        Err(AskError::Failed(found)) => Err(job_status(JobError::Failed(found))),
        Err(AskError::HostDown(host)) => Err(job_status(JobError::HostDown(host))),
    }
}

pub async fn kill(leader: &Arc<Leader>, request: KillRequest) -> Result<Document, Status> {
    let signal = match request.signal.as_str() {
        "" => Signal::KILL,
        text => text.parse().map_err(|reason| invalid(text, reason))?,
    };
    let container = find(leader, &request.container).await?;
    settled(leader, &container.id)?;
    match container.status {
        ContainerStatus::Running | ContainerStatus::Paused => {}
        _ => {
            return Err(failure::refused(Refusal::NotRunning {
                name: container.spec.name.clone(),
                status: container.status.to_string(),
            }));
        }
    }
    require_up(leader, &container.host)?;
    let verb = Verb::Signal {
        container: container.id.clone(),
        generation: container.generation,
        signal,
    };
    ask(leader, &container, verb).await?;
    view_of(leader, &container.id)
}

pub async fn rename(leader: &Arc<Leader>, request: RenameRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let name = ContainerName::new(request.name.clone())
        .map_err(|reason| invalid(&request.name, reason))?;
    let id = container.id;
    let command = Command::Rename {
        container: id.clone(),
        name,
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    view_of(leader, &id)
}

/// The host first: what it can't do is not written down.
pub async fn update(leader: &Arc<Leader>, request: UpdateRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let id = container.id.clone();
    settled(leader, &id)?;
    let change: LimitsChange = match &request.limits {
        Some(limits) => document::read(limits)?,
        None => LimitsChange::default(),
    };
    let limits = change.over(&container.spec.limits);
    let restart = match request.restart.as_str() {
        "" => container.spec.options.policy.restart,
        text => text.parse().map_err(|reason| invalid(text, reason))?,
    };
    let mut spec = container.spec.clone();
    spec.limits = limits.clone();
    spec.options.policy.restart = restart;
    spec.limits
        .check()
        .and_then(|()| spec.options.policy.check())
        .map_err(|problem| invalid(container.spec.name.as_str(), problem))?;
    let there = matches!(
        container.status,
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting { .. }
    );
    let verb = |spec: &godwit_types::ContainerSpec| Verb::Update {
        container: id.clone(),
        generation: container.generation,
        spec: Box::new(spec.clone()),
    };
    if there {
        require_up(leader, &container.host)?;
        ask(leader, &container, verb(&spec)).await?;
    }
    let command = Command::Update {
        container: id.clone(),
        limits,
        restart,
    };
    if let Err(error) = leader.raft.propose(&command).await {
        if there && matches!(error, ProposeError::Refused(_)) {
            // Something else was asked of it meanwhile: its host goes back to what is written.
            drop(ask(leader, &container, verb(&container.spec)).await);
        }
        return Err(status_of(error));
    }
    view_of(leader, &id)
}

/// Answers when it has ended, at once if it has. A container that is removed before anybody saw
/// its end has ended, too. → [`Exit`]
pub async fn wait(leader: &Arc<Leader>, request: ContainerRequest) -> Result<Document, Status> {
    let container = find(leader, &request.container).await?;
    let (id, name) = (container.id, container.spec.name);
    let mut published = leader.raft.published();
    let mut seen: Option<Option<Exit>> = None;
    loop {
        let state = published.borrow_and_update().state.clone();
        let Some(container) = state.containers.get(&id) else {
            return Err(failure::refused(Refusal::UnknownContainer {
                name: name.to_string(),
            }));
        };
        let last = container.details.last_exit;
        let before = *seen.get_or_insert(last);
        let exit = match &container.status {
            ContainerStatus::Exited { exit } | ContainerStatus::Restarting { exit } => Some(*exit),
            ContainerStatus::Failed { reason } => {
                return Err(invalid(name.as_str(), reason));
            }
            // It was started again before its end could be seen.
            _ if last != before => last,
            _ => None,
        };
        if let Some(exit) = exit {
            return Ok(document::write(&exit));
        }
        if published.changed().await.is_err() {
            return Err(super::lost());
        }
    }
}

pub async fn label_host(leader: &Arc<Leader>, request: LabelHostRequest) -> Result<Empty, Status> {
    let state = read(leader).await?;
    let host = find_host(&state, &request.host).map_err(failure::refused)?;
    let mut labels = state.hosts[&host].labels.clone();
    for text in &request.add {
        let (key, value) = parse_label(text).map_err(|reason| invalid(text, reason))?;
        labels.insert(key, value);
    }
    for key in &request.remove {
        labels.remove(key);
    }
    let command = Command::LabelHost { host, labels };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(Empty {})
}
