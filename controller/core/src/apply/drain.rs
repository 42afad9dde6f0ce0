//! Hosts that are to be left: asked for, taken back, and what could not be moved.

use std::collections::BTreeSet;

use godwit_types::{ContainerId, HostName, MigrationId, Refusal};

use super::Applied;
use crate::{
    drain::MAX_ATTEMPTS,
    state::{Drain, DrainFailure, Host, State},
};

fn host<'a>(state: &'a mut State, name: &HostName) -> Result<&'a mut Host, Refusal> {
    let found = state.hosts.get_mut(name);
    found.ok_or_else(|| Refusal::UnknownHost {
        host: name.to_string(),
    })
}

pub(super) fn begin(
    state: &mut State,
    name: &HostName,
    to: &BTreeSet<HostName>,
) -> Result<Applied, Refusal> {
    for destination in to {
        if destination == name {
            return Err(Refusal::Invalid {
                what: destination.to_string(),
                problem: "it is the host that is to be drained".to_owned(),
            });
        }
        host(state, destination)?;
        if state.is_draining(destination) {
            return Err(Refusal::HostDraining {
                host: destination.clone(),
            });
        }
    }
    let host = host(state, name)?;
    let mut drain = host.drain.clone().unwrap_or_default();
    drain.failed.clear();
    if !to.is_empty() {
        drain.to.clone_from(to);
    }
    if host.drain.as_ref() == Some(&drain) {
        return Ok(Applied::Unchanged);
    }
    host.drain = Some(drain);
    Ok(Applied::Changed)
}

/// What the drain queued leaves the queue when it is [settled](super::queue::settle).
pub(super) fn end(state: &mut State, name: &HostName) -> Result<Applied, Refusal> {
    match host(state, name)?.drain.take() {
        Some(_) => Ok(Applied::Changed),
        None => Ok(Applied::Unchanged),
    }
}

/// It could not even be tried, or is not to be tried again.
pub(super) fn note(
    state: &mut State,
    host: &HostName,
    container: &ContainerId,
    reason: &str,
    for_good: bool,
) -> Applied {
    let owned = state
        .containers
        .get(container)
        .is_some_and(|container| container.host == *host);
    match drain_of(state, host) {
        Some(drain) if owned => {
            let attempts = if for_good { MAX_ATTEMPTS } else { 1 };
            count(drain, container, reason, None, attempts);
            Applied::Changed
        }
        _ => Applied::Unchanged,
    }
}

/// A migration was aborted.
pub(super) fn failed(state: &mut State, id: &MigrationId) {
    let Some(migration) = state.migrations.get(id).filter(|m| m.drain).cloned() else {
        return;
    };
    if let Some(drain) = drain_of(state, &migration.from) {
        let reason = migration.error.unwrap_or_default();
        count(drain, &migration.container, &reason, Some(migration.to), 1);
    }
}

/// A migration was committed, whoever asked for it.
pub(super) fn left(state: &mut State, id: &MigrationId) {
    let from = state.migrations.get(id).map(|m| m.from.clone());
    if let Some(drain) = from.and_then(|from| drain_of(state, &from)) {
        drain.moved += 1;
    }
}

/// Containers that are not there any more need no reason why.
pub(super) fn forget_gone(state: &mut State) {
    let containers = &state.containers;
    for (name, host) in &mut state.hosts {
        if let Some(drain) = &mut host.drain {
            drain
                .failed
                .retain(|id, _| containers.get(id).is_some_and(|c| c.host == *name));
        }
    }
}

fn drain_of<'a>(state: &'a mut State, host: &HostName) -> Option<&'a mut Drain> {
    state.hosts.get_mut(host)?.drain.as_mut()
}

fn count(
    drain: &mut Drain,
    container: &ContainerId,
    reason: &str,
    to: Option<HostName>,
    attempts: u32,
) {
    let failure = drain
        .failed
        .entry(container.clone())
        .or_insert_with(|| DrainFailure {
            attempts: 0,
            reason: String::new(),
            to: None,
        });
    failure.attempts = failure.attempts.saturating_add(attempts);
    reason.clone_into(&mut failure.reason);
    failure.to = to;
}
