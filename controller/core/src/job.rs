//! What is not yet as it was asked for.

use godwit_types::{ContainerId, MigrationId, Status, VolumeName};

use crate::state::{Desired, State};

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    Run(ContainerId),
    Stop(ContainerId),
    Start(ContainerId),
    /// Or unpause.
    Pause(ContainerId),
    Remove(ContainerId),
    Migrate(MigrationId),
    /// Tell the destination of a recovered migration to discard, once it is in contact again.
    Clear(MigrationId),
    /// Have its host remove the data of a volume.
    RemoveVolume(VolumeName),
}

/// What this state wants done.
pub fn due(state: &State) -> Vec<Job> {
    let mut jobs: Vec<_> = state
        .active_migrations()
        .filter(|migration| !migration.queued)
        .map(|migration| Job::Migrate(migration.id.clone()))
        .collect();
    for migration in state.migrations.values() {
        if migration
            .recovered
            .is_some_and(|recovered| recovered.uncleared)
        {
            jobs.push(Job::Clear(migration.id.clone()));
        }
    }
    for volume in state.volumes.values().filter(|volume| volume.removing) {
        jobs.push(Job::RemoveVolume(volume.name.clone()));
    }
    for container in state.containers.values() {
        let id = || container.id.clone();
        match (&container.status, container.desired) {
            (Status::Creating, _) => jobs.push(Job::Run(id())),
            (Status::Removing, _) => jobs.push(Job::Remove(id())),
            (Status::Starting { .. }, _) => jobs.push(Job::Start(id())),
            (
                Status::Running | Status::Paused | Status::Restarting { .. },
                Desired::Stopped { .. } | Desired::Restarted { .. },
            ) => jobs.push(Job::Stop(id())),
            (Status::Running, Desired::Paused) | (Status::Paused, Desired::Running) => {
                jobs.push(Job::Pause(id()));
            }
            _ => {}
        }
    }
    jobs
}
