//! Orders to containers that are there, until their hosts have answered; and the removal of those
//! that were to be removed once they ended.

use std::{sync::Arc, time::Duration};

use godwit_core::{Command, Desired, container_operation};
use godwit_types::{AgentCommand, AutoRemove, ContainerId, InstanceState, Outcome, Status, Verb};
use tracing::{info, warn};

use super::{
    Job, JobError, Leader,
    container::{get, propose, report},
    sessions::AskError,
};
use crate::ids;

/// Between two looks for containers that have ended.
const SWEEP: Duration = Duration::from_millis(250);
/// Whoever follows a container has so long to read what it left, and to remove it.
const FOLLOWER: Duration = Duration::from_secs(60);

pub(super) async fn start(leader: &Arc<Leader>, id: &ContainerId) {
    let job = Job::Start(id.clone());
    while let Some(container) = get(leader, id) {
        let Status::Starting { fresh, .. } = container.status else {
            break;
        };
        let (container_id, generation) = (id.clone(), container.generation);
        let spec = Box::new(container.spec.clone());
        let verb = if fresh {
            Verb::Run {
                container: container_id,
                generation,
                spec,
            }
        } else {
            Verb::Start {
                container: container_id,
                generation,
                spec,
            }
        };
        let command = AgentCommand {
            operation: container_operation(id, &verb, container.starts),
            verb,
        };
        match leader.sessions.ask(&container.host, command).await {
            Ok(outcome) => {
                if let Outcome::Running { pid } = outcome {
                    propose(leader, report(&container, InstanceState::Running { pid })).await;
                }
                info!(container = id.short(), host = %container.host, "container started");
                break;
            }
            Err(AskError::Failed(failure)) => {
                warn!(container = id.short(), error = %failure.message, "start failed");
                let command = Command::StartFailed {
                    container: id.clone(),
                    reason: failure.message.clone(),
                };
                propose(leader, command).await;
                leader.jobs.settle(&job, &Err(JobError::Failed(failure)));
                return;
            }
            Err(AskError::HostDown(host)) => {
                let error = JobError::HostDown(host.clone());
                leader.jobs.settle(&job, &Err(error));
                leader.sessions.wait_up(&host).await;
            }
        }
    }
    leader.jobs.settle(&job, &Ok(()));
}

/// Pause or unpause, whichever is asked for.
pub(super) async fn pause(leader: &Arc<Leader>, id: &ContainerId) {
    let job = Job::Pause(id.clone());
    let operation = ids::operation_id();
    let mut asked = None;
    while let Some(container) = get(leader, id) {
        let pause = match (&container.status, container.desired) {
            (Status::Running, Desired::Paused) => true,
            (Status::Paused, Desired::Running) => false,
            _ => break,
        };
        // The other one is another operation.
        if *asked.get_or_insert(pause) != pause {
            break;
        }
        let (container_id, generation) = (id.clone(), container.generation);
        let verb = if pause {
            Verb::Pause {
                container: container_id,
                generation,
            }
        } else {
            Verb::Unpause {
                container: container_id,
                generation,
            }
        };
        let command = AgentCommand {
            operation: operation.clone(),
            verb,
        };
        match leader.sessions.ask(&container.host, command).await {
            Ok(_) => {
                let pid = container.pid.unwrap_or(0);
                let state = if pause {
                    InstanceState::Paused { pid }
                } else {
                    InstanceState::Running { pid }
                };
                propose(leader, report(&container, state)).await;
                break;
            }
            Err(AskError::Failed(failure)) => {
                warn!(container = id.short(), error = %failure.message, pause, "pause failed");
                let container = id.clone();
                propose(leader, Command::CancelStop { container }).await;
                leader.jobs.settle(&job, &Err(JobError::Failed(failure)));
                return;
            }
            Err(AskError::HostDown(host)) => {
                let error = JobError::HostDown(host.clone());
                leader.jobs.settle(&job, &Err(error));
                leader.sessions.wait_up(&host).await;
            }
        }
    }
    leader.jobs.settle(&job, &Ok(()));
}

/// Removes containers that were run with `--rm` once they have ended, for ever.
pub(super) async fn remove_ended(leader: Arc<Leader>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let state = leader.state();
        let now = ids::now_ms();
        for container in state.containers.values() {
            let Some(when) = container.spec.options.policy.remove else {
                continue;
            };
            let ended_ms = match &container.status {
                Status::Exited { exit } => exit.at_ms,
                Status::Failed { .. } => 0,
                _ => continue,
            };
            let due = match when {
                AutoRemove::AtOnce => 0,
                AutoRemove::Followed => ended_ms.saturating_add(FOLLOWER.as_millis() as u64),
            };
            if container.migration.is_none() && now >= due {
                let command = Command::BeginRemove {
                    container: container.id.clone(),
                    force: false,
                    // As Docker does for `--rm`.
                    volumes: true,
                };
                leader.raft.propose_detached(&command);
            }
        }
    }
}
