//! What is left to do on a host that is to be left.

use std::time::Duration;

use godwit_types::{HostName, Status};

use crate::state::{Container, Desired, State};

/// A container that could not be moved so often is not tried again until the drain is asked for
/// anew.
pub const MAX_ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait after so many attempts that failed.
pub fn backoff(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        more => FIRST_PAUSE * (1 << (more.min(MAX_ATTEMPTS) - 1)),
    }
}

/// How it stands with one container of a host that is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing moves it yet.
    Due,
    /// A migration is under way or queued, whoever asked for it.
    Moving,
    /// It is being made, stopped or removed: what it will be is not known yet.
    Changing,
    /// It has ended: there is nothing to move.
    Ended,
    /// It was tried often enough.
    GivenUp,
}

/// Every container that is still there. A host that is not draining has none to be moved.
pub fn left_on<'a>(
    state: &'a State,
    host: &'a HostName,
) -> impl Iterator<Item = (&'a Container, Left)> {
    let drain = state.hosts.get(host).and_then(|host| host.drain.as_ref());
    drain.into_iter().flat_map(move |drain| {
        state.owned_by(host).map(move |container| {
            let failed = drain.failed.get(&container.id);
            let left = match (&container.status, container.desired) {
                _ if container.migration.is_some() => Left::Moving,
                (Status::Creating | Status::Starting { .. } | Status::Removing, _) => {
                    Left::Changing
                }
                (
                    Status::Created
                    | Status::Exited { .. }
                    | Status::Failed { .. }
                    | Status::Restarting { .. },
                    _,
                )
                | (Status::Paused, Desired::Paused) => Left::Ended,
                (Status::Paused, _) => Left::Changing,
                (
                    Status::Running,
                    Desired::Stopped { .. }
                    | Desired::Restarted { .. }
                    | Desired::Paused
                    | Desired::Removed,
                ) => Left::Changing,
                _ if failed.is_some_and(|failed| failed.attempts >= MAX_ATTEMPTS) => Left::GivenUp,
                (Status::Running, Desired::Running) => Left::Due,
            };
            (container, left)
        })
    })
}
