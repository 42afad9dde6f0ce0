//! The data of volumes that are to go.

use std::{sync::Arc, time::Duration};

use godwit_core::Command;
use godwit_types::{AgentCommand, Verb, VolumeName};
use tracing::{info, warn};

use super::{Job, JobError, Leader, sessions::AskError};
use crate::ids;

const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

pub(super) async fn remove(leader: &Arc<Leader>, name: &VolumeName) {
    let job = Job::RemoveVolume(name.clone());
    let mut backoff = BACKOFF;
    loop {
        let volume = leader.state().volumes.get(name).cloned();
        let Some(volume) = volume.filter(|volume| volume.removing) else {
            break;
        };
        if let Some(host) = &volume.host {
            let command = AgentCommand {
                operation: ids::operation_id(),
                verb: Verb::RemoveVolume {
                    volume: volume.id.clone(),
                },
            };
            match leader.sessions.ask(host, command).await {
                Ok(_) => {}
                Err(AskError::Failed(failure)) => {
                    warn!(volume = %name, %host, error = %failure.message, "volume not removed");
                    leader.jobs.settle(&job, &Err(JobError::Failed(failure)));
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    continue;
                }
                Err(AskError::HostDown(host)) => {
                    let error = JobError::HostDown(host.clone());
                    leader.jobs.settle(&job, &Err(error));
                    leader.sessions.wait_up(&host).await;
                    continue;
                }
            }
        }
        let command = Command::VolumeRemoved {
            volume: name.clone(),
            id: volume.id.clone(),
        };
        if let Err(reason) = leader.raft.propose(&command).await {
            // The next leader asks again.
            warn!(%reason, volume = %name, "removal not written");
            return;
        }
        info!(volume = %name, "volume removed");
        break;
    }
    leader.jobs.settle(&job, &Ok(()));
}
