//! Orders to a container that is there: start, restart, pause, unpause, rename, update. One order
//! at a time: while one is being carried out another is refused, whoever gives it.

use godwit_types::{ContainerId, ContainerName, Limits, Refusal, RestartPolicy, Status};

use super::{
    Applied,
    container::{get, settled},
};
use crate::state::{Container, Desired, State};

/// What is being done with a container now. None: it is as it was asked for.
pub(super) fn under_way(container: &Container) -> Option<&'static str> {
    match (&container.status, container.desired) {
        (Status::Removing, _) => Some("removed"),
        (Status::Creating, _) => Some("created"),
        (Status::Starting { .. }, _) => Some("started"),
        (_, Desired::Restarted { .. }) => Some("restarted"),
        (Status::Running | Status::Paused | Status::Restarting { .. }, Desired::Stopped { .. }) => {
            Some("stopped")
        }
        (Status::Running, Desired::Paused) => Some("paused"),
        (Status::Paused, Desired::Running) => Some("unpaused"),
        _ => None,
    }
}

/// Refuses while another order is being carried out.
pub(super) fn at_rest(container: &Container) -> Result<(), Refusal> {
    match under_way(container) {
        Some(what) => Err(Refusal::Changing {
            name: container.spec.name.clone(),
            what: what.to_owned(),
        }),
        None => Ok(()),
    }
}

fn cant(container: &Container, what: &str) -> Refusal {
    Refusal::CantBe {
        name: container.spec.name.clone(),
        status: container.status.to_string(),
        what: what.to_owned(),
    }
}

/// Of what runs: nothing.
pub(super) fn start(state: &mut State, id: &ContainerId) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    if matches!(container.status, Status::Starting { .. }) {
        return Ok(Applied::Unchanged);
    }
    at_rest(container)?;
    match container.status {
        Status::Running | Status::Restarting { .. } => return Ok(Applied::Unchanged),
        Status::Paused => return Err(cant(container, "started; unpause it")),
        _ => {}
    }
    begin(container);
    Ok(Applied::Changed)
}

/// From now on its host is asked to start it.
pub(super) fn begin(container: &mut Container) {
    container.status = Status::Starting {
        before: match &container.status {
            Status::Exited { exit } => Some(*exit),
            _ => None,
        },
        fresh: container.status == Status::Created,
    };
    container.desired = Desired::Running;
    container.starts += 1;
    container.pid = None;
}

/// The host could not start it, and has undone what it had begun.
pub(super) fn start_failed(
    state: &mut State,
    id: &ContainerId,
    reason: &str,
) -> Result<Applied, Refusal> {
    let container = get(state, id)?;
    let Status::Starting { before, fresh } = container.status else {
        return Ok(Applied::Unchanged);
    };
    container.status = match before {
        _ if fresh => Status::Created,
        Some(exit) => Status::Exited { exit },
        None => Status::Failed {
            reason: reason.to_owned(),
        },
    };
    Ok(Applied::Changed)
}

pub(super) fn restart(
    state: &mut State,
    id: &ContainerId,
    grace_ms: u64,
) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    if matches!(container.desired, Desired::Restarted { .. }) {
        return Ok(Applied::Unchanged);
    }
    at_rest(container)?;
    match container.status {
        Status::Running | Status::Paused | Status::Restarting { .. } => {
            container.desired = Desired::Restarted { grace_ms };
        }
        _ => begin(container),
    }
    Ok(Applied::Changed)
}

pub(super) fn pause(state: &mut State, id: &ContainerId, yes: bool) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    let (from, to, what) = if yes {
        (Status::Running, Desired::Paused, "paused")
    } else {
        (Status::Paused, Desired::Running, "unpaused")
    };
    if under_way(container) == Some(what) {
        return Ok(Applied::Unchanged);
    }
    at_rest(container)?;
    if container.status != from {
        return Err(cant(container, what));
    }
    container.desired = to;
    Ok(Applied::Changed)
}

pub(super) fn rename(
    state: &mut State,
    id: &ContainerId,
    name: &ContainerName,
) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let holder = state.containers.values().find(|c| c.spec.name == *name);
    if let Some(holder) = holder {
        return if holder.id == *id {
            Ok(Applied::Unchanged)
        } else {
            Err(Refusal::NameInUse { name: name.clone() })
        };
    }
    let container = get(state, id)?;
    if container.status == Status::Removing {
        at_rest(container)?;
    }
    container.spec.name = name.clone();
    Ok(Applied::Changed)
}

/// The host has them already, if it runs there.
pub(super) fn update(
    state: &mut State,
    id: &ContainerId,
    limits: &Limits,
    restart: RestartPolicy,
) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    at_rest(container)?;
    if container.spec.limits == *limits && container.spec.options.policy.restart == restart {
        return Ok(Applied::Unchanged);
    }
    container.spec.limits = limits.clone();
    container.spec.options.policy.restart = restart;
    Ok(Applied::Changed)
}
