//! Containers: made, reported, stopped, removed.

use godwit_types::{
    ContainerId, ContainerSpec, Generation, HostName, InstanceDetails, InstanceState, Refusal,
    RestartPolicy, Status,
};

use super::{Applied, network, orders, ports, volume};
use crate::{
    command::NewContainer,
    state::{Container, Desired, State},
};

pub(super) fn create(state: &mut State, new: &NewContainer) -> Result<Applied, Refusal> {
    if let Some(old) = state.containers.get(&new.id)
        && old.spec.name == new.name
    {
        return Ok(Applied::Unchanged);
    }
    let mut containers = state.containers.values();
    if containers.any(|c| c.spec.name == new.name || c.id == new.id) {
        return Err(Refusal::NameInUse {
            name: new.name.clone(),
        });
    }
    if !state.hosts.contains_key(&new.host) {
        return Err(Refusal::UnknownHost {
            host: new.host.to_string(),
        });
    }
    if state.is_draining(&new.host) {
        return Err(Refusal::HostDraining {
            host: new.host.clone(),
        });
    }
    volume::check_new(state, new)?;
    ports::check_new(state, new)?;
    let host = &state.hosts[&new.host];
    let unmet = new.options.policy.constraints.iter();
    if let Some(constraint) = unmet.clone().find(|c| !c.holds(&host.labels)) {
        return Err(Refusal::Constrained {
            host: new.host.clone(),
            name: new.name.clone(),
            constraint: constraint.to_string(),
        });
    }
    let attachment = match &new.network {
        Some(name) => Some(network::free_address(state, name)?),
        None => None,
    };
    if let Some(attachment) = &attachment {
        network::take(state, attachment, &new.id);
    }
    let mut options = new.options.clone();
    options.storage = volume::take(state, options.storage, &new.host, new.created_ms);
    let container = Container {
        id: new.id.clone(),
        spec: ContainerSpec {
            name: new.name.clone(),
            image: new.image.clone(),
            image_id: new.image_id.clone(),
            command: new.command.clone(),
            env: new.env.clone(),
            limits: new.limits.clone(),
            network: attachment,
            hostname: new.hostname.clone(),
            options,
        },
        host: new.host.clone(),
        generation: Generation::FIRST,
        desired: Desired::Running,
        status: if new.only_create {
            Status::Created
        } else {
            Status::Creating
        },
        pid: None,
        created_ms: new.created_ms,
        migration: None,
        removes_volumes: false,
        details: InstanceDetails::default(),
        starts: 0,
    };
    state.containers.insert(new.id.clone(), container);
    Ok(Applied::Changed)
}

/// Whether a `ReportInstance` of this would change anything.
pub fn is_news(
    state: &State,
    host: &HostName,
    id: &ContainerId,
    generation: Generation,
    instance: Option<&InstanceState>,
    details: Option<&InstanceDetails>,
) -> bool {
    let owned = state
        .containers
        .get(id)
        .filter(|c| c.host == *host && c.generation == generation);
    owned.is_some_and(|container| {
        observed(container, instance)
            .is_some_and(|(status, pid)| container.status != status || container.pid != pid)
            || details.is_some_and(|details| *details != container.details)
    })
}

/// Only the owner is heard, and only by the present generation: anything else is of the past.
pub(super) fn report(
    state: &mut State,
    host: &HostName,
    id: &ContainerId,
    generation: Generation,
    instance: Option<&InstanceState>,
    details: Option<&InstanceDetails>,
) -> Applied {
    let Some(container) = state.containers.get_mut(id) else {
        return Applied::Unchanged;
    };
    if container.host != *host || container.generation != generation {
        return Applied::Unchanged;
    }
    let known = details.is_none_or(|details| *details == container.details);
    if let Some(details) = details {
        container.details = details.clone();
    }
    let Some((status, pid)) = observed(container, instance) else {
        return if known {
            Applied::Unchanged
        } else {
            Applied::Changed
        };
    };
    if container.status == status && container.pid == pid && known {
        return Applied::Unchanged;
    }
    let ended = matches!(status, Status::Exited { .. } | Status::Failed { .. });
    let lost = matches!(status, Status::Failed { .. });
    container.status = status;
    container.pid = pid;
    if !ended {
        return Applied::Changed;
    }
    match container.desired {
        Desired::Restarted { .. } => orders::begin(container),
        // Its host was started again, and nothing there could tell what had become of it: only
        // here is it known whose it is.
        Desired::Running | Desired::Paused
            if lost
                && container.migration.is_none()
                && container.spec.options.policy.restart != RestartPolicy::No =>
        {
            orders::begin(container);
        }
        _ => container.desired = Desired::Running,
    }
    Applied::Changed
}

/// The status that follows from what the owner says, None where it says nothing new.
fn observed(
    container: &Container,
    instance: Option<&InstanceState>,
) -> Option<(Status, Option<i32>)> {
    if container.status == Status::Removing {
        return None;
    }
    match instance {
        Some(InstanceState::Running { pid }) => Some((Status::Running, Some(*pid))),
        Some(InstanceState::Paused { pid }) => Some((Status::Paused, Some(*pid))),
        // It is of the run before the one that was asked for.
        Some(InstanceState::Exited { exit } | InstanceState::Restarting { exit }) if matches!(container.status, Status::Starting { before, .. } if before == Some(*exit)) => {
            None
        }
        Some(InstanceState::Lost { .. }) if matches!(container.status, Status::Starting { .. }) => {
            None
        }
        Some(InstanceState::Restarting { exit }) => {
            Some((Status::Restarting { exit: *exit }, None))
        }
        Some(InstanceState::Exited { exit }) => Some((Status::Exited { exit: *exit }, None)),
        Some(InstanceState::Lost { reason }) => {
            let reason = reason.clone();
            Some((Status::Failed { reason }, None))
        }
        // Held for a migration, or not started yet: the status stands.
        Some(
            InstanceState::Created | InstanceState::Frozen { .. } | InstanceState::Staged { .. },
        ) => None,
        // While it is moved its two hosts are asked themselves.
        None if matches!(
            container.status,
            Status::Running | Status::Paused | Status::Restarting { .. }
        ) && container.migration.is_none() =>
        {
            let reason = "its host no longer has it".to_owned();
            Some((Status::Failed { reason }, None))
        }
        None => None,
    }
}

pub(super) fn get<'a>(
    state: &'a mut State,
    id: &ContainerId,
) -> Result<&'a mut Container, Refusal> {
    let found = state.containers.get_mut(id);
    found.ok_or_else(|| Refusal::UnknownContainer {
        name: id.short().to_owned(),
    })
}

/// Refuses while the container is being moved.
pub(super) fn settled(state: &State, id: &ContainerId) -> Result<(), Refusal> {
    let container = state.containers.get(id);
    let migration = container
        .and_then(|c| c.migration.as_ref())
        .and_then(|id| state.migrations.get(id));
    match migration {
        Some(migration) => Err(Refusal::Migrating {
            name: migration.name.clone(),
            migration: migration.id.clone(),
            phase: migration.phase,
        }),
        None => Ok(()),
    }
}

pub(super) fn begin_stop(
    state: &mut State,
    id: &ContainerId,
    grace_ms: u64,
) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    if !matches!(
        container.status,
        Status::Running | Status::Paused | Status::Restarting { .. }
    ) {
        return Err(Refusal::NotRunning {
            name: container.spec.name.clone(),
            status: container.status.to_string(),
        });
    }
    let desired = Desired::Stopped { grace_ms };
    if matches!(container.desired, Desired::Stopped { .. }) {
        // A shorter patience is taken, as when somebody asks twice.
        if container.desired == desired {
            return Ok(Applied::Unchanged);
        }
    } else {
        orders::at_rest(container)?;
    }
    container.desired = desired;
    Ok(Applied::Changed)
}

pub(super) fn cancel_stop(state: &mut State, id: &ContainerId) -> Result<Applied, Refusal> {
    let container = get(state, id)?;
    let as_it_is = match container.status {
        Status::Paused => Desired::Paused,
        _ => Desired::Running,
    };
    if container.desired == as_it_is || container.desired == Desired::Removed {
        return Ok(Applied::Unchanged);
    }
    container.desired = as_it_is;
    Ok(Applied::Changed)
}

pub(super) fn begin_remove(
    state: &mut State,
    id: &ContainerId,
    force: bool,
    volumes: bool,
) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let container = get(state, id)?;
    match container.status {
        Status::Removing => return Ok(Applied::Unchanged),
        Status::Creating
        | Status::Starting { .. }
        | Status::Running
        | Status::Paused
        | Status::Restarting { .. }
            if !force =>
        {
            return Err(Refusal::StillRunning {
                name: container.spec.name.clone(),
            });
        }
        _ => {}
    }
    container.status = Status::Removing;
    container.removes_volumes = volumes;
    container.desired = Desired::Removed;
    container.pid = None;
    Ok(Applied::Changed)
}

pub(super) fn removed(state: &mut State, id: &ContainerId) -> Result<Applied, Refusal> {
    settled(state, id)?;
    let Some(container) = state.containers.remove(id) else {
        return Ok(Applied::Unchanged);
    };
    // One that never ran leaves none, either.
    if container.removes_volumes || container.status == Status::Creating {
        volume::leave(state, &container.spec);
    }
    if let Some(attachment) = container.spec.network {
        network::free(state, &attachment.network.name, attachment.address);
    }
    Ok(Applied::Changed)
}

pub(super) fn mark_failed(
    state: &mut State,
    id: &ContainerId,
    reason: &str,
) -> Result<Applied, Refusal> {
    let container = get(state, id)?;
    let status = Status::Failed {
        reason: reason.to_owned(),
    };
    if container.status == status || container.status == Status::Removing {
        return Ok(Applied::Unchanged);
    }
    container.status = status;
    container.pid = None;
    Ok(Applied::Changed)
}
