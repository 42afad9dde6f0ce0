//! Containers on their hosts: run, stop, remove, until the host has answered.

use std::{sync::Arc, time::Duration};

use godwit_core::{Command, Container, Desired, container_operation, due};
use godwit_types::{
    AgentCommand, ContainerId, Exit, FailureKind, InstanceState, Outcome, Status, Verb,
};
use tracing::{info, warn};

use super::{Job, JobError, Leader, sessions::AskError};
use crate::{ids, raft::ProposeError};

const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub(super) fn get(leader: &Leader, id: &ContainerId) -> Option<Container> {
    leader.state().containers.get(id).cloned()
}

pub(super) fn report(container: &Container, state: InstanceState) -> Command {
    Command::ReportInstance {
        host: container.host.clone(),
        container: container.id.clone(),
        generation: container.generation,
        state: Some(state),
        details: None,
    }
}

/// Until it is written or refused. Whoever waits for the job must not hear that it is done while
/// nobody knows; when the lead is lost, this is dropped with it.
pub(super) async fn propose(leader: &Leader, command: Command) {
    loop {
        match leader.raft.propose(&command).await {
            Ok(_) => return,
            Err(reason @ ProposeError::Refused(_)) => {
                // The state is looked at again: what is still due is done again.
                warn!(%reason, ?command, "not written");
                return;
            }
            Err(reason) => {
                warn!(%reason, ?command, "not written yet");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

pub(super) async fn run(leader: &Arc<Leader>, id: &ContainerId) {
    let job = Job::Run(id.clone());
    while let Some(container) = get(leader, id).filter(|c| c.status == Status::Creating) {
        let verb = Verb::Run {
            container: id.clone(),
            generation: container.generation,
            spec: Box::new(container.spec.clone()),
        };
        let command = AgentCommand {
            operation: container_operation(id, &verb, 0),
            verb,
        };
        match leader.sessions.ask(&container.host, command).await {
            Ok(outcome) => {
                if let Outcome::Running { pid } = outcome {
                    propose(leader, report(&container, InstanceState::Running { pid })).await;
                }
                info!(container = id.short(), host = %container.host, "container runs");
                leader.jobs.settle(&job, &Ok(()));
                return;
            }
            Err(AskError::Failed(failure)) => {
                // The host has undone it, so that nothing is left to remove there.
                let error = &failure.message;
                warn!(container = id.short(), host = %container.host, %error, "run failed");
                let container = id.clone();
                propose(leader, Command::Removed { container }).await;
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

pub(super) async fn stop(leader: &Arc<Leader>, id: &ContainerId) {
    let job = Job::Stop(id.clone());
    let operation = ids::operation_id();
    while let Some(container) = get(leader, id) {
        if !due(&leader.state()).contains(&job) {
            break;
        }
        let (Desired::Stopped { grace_ms } | Desired::Restarted { grace_ms }) = container.desired
        else {
            break;
        };
        let command = AgentCommand {
            operation: operation.clone(),
            verb: Verb::Stop {
                container: id.clone(),
                generation: container.generation,
                grace_ms,
            },
        };
        match leader.sessions.ask(&container.host, command).await {
            Ok(outcome) => {
                let exit = match outcome {
                    Outcome::Stopped { exit } => exit,
                    _ => Exit {
                        code: 137,
                        at_ms: ids::now_ms(),
                    },
                };
                propose(leader, report(&container, InstanceState::Exited { exit })).await;
                info!(
                    container = id.short(),
                    code = exit.code,
                    "container stopped"
                );
                break;
            }
            Err(AskError::Failed(failure)) => {
                warn!(container = id.short(), error = %failure.message, "stop failed");
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

pub(super) async fn remove(leader: &Arc<Leader>, id: &ContainerId) {
    let job = Job::Remove(id.clone());
    let mut backoff = BACKOFF;
    let mut attempt = 0;
    while let Some(container) = get(leader, id).filter(|c| c.status == Status::Removing) {
        let verb = Verb::Remove {
            container: id.clone(),
            generation: container.generation,
            // Whether it may be killed was decided when the removal was accepted.
            force: true,
        };
        let command = AgentCommand {
            operation: container_operation(id, &verb, attempt),
            verb,
        };
        match leader.sessions.ask(&container.host, command).await {
            Err(AskError::Failed(failure)) if failure.kind != FailureKind::NotFound => {
                warn!(container = id.short(), error = %failure.message, "remove failed");
                leader.jobs.settle(&job, &Err(JobError::Failed(failure)));
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
                attempt += 1;
            }
            Err(AskError::HostDown(host)) => {
                let error = JobError::HostDown(host.clone());
                leader.jobs.settle(&job, &Err(error));
                leader.sessions.wait_up(&host).await;
            }
            Ok(_) | Err(AskError::Failed(_)) => {
                let container = id.clone();
                propose(leader, Command::Removed { container }).await;
                info!(container = id.short(), "container removed");
                break;
            }
        }
    }
    leader.jobs.settle(&job, &Ok(()));
}
