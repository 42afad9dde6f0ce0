//! Migrations: started, advanced by the table, aborted before the commit.

use godwit_types::{
    ContainerId, FailureKind, HostName, MigrationId, MigrationOptions, MigrationTimes, Phase,
    Priority, Refusal, Status,
};

use super::{Applied, container::settled, drain, network, volume};
use crate::{
    command::Record,
    phase,
    state::{Desired, Migration, State},
};

/// How many finished migrations are remembered.
const HISTORY: usize = 100;

#[expect(clippy::too_many_arguments, reason = "the fields of one command")]
pub(super) fn start(
    state: &mut State,
    id: &MigrationId,
    container_id: &ContainerId,
    to: &HostName,
    started_ms: u64,
    options: &MigrationOptions,
    priority: Priority,
    drain: bool,
) -> Result<Applied, Refusal> {
    if let Some(old) = state.migrations.get(id) {
        return if old.container == *container_id && old.to == *to {
            Ok(Applied::Unchanged)
        } else {
            Err(Refusal::Invalid {
                what: id.to_string(),
                problem: "another migration has this id".to_owned(),
            })
        };
    }
    if !state.hosts.contains_key(to) {
        return Err(Refusal::UnknownHost {
            host: to.to_string(),
        });
    }
    if state.is_draining(to) {
        return Err(Refusal::HostDraining { host: to.clone() });
    }
    settled(state, container_id)?;
    volume::movable(state, container_id, to)?;
    let container =
        state
            .containers
            .get_mut(container_id)
            .ok_or_else(|| Refusal::UnknownContainer {
                name: container_id.short().to_owned(),
            })?;
    let labels = &state.hosts[to].labels;
    let mut unmet = container.spec.options.policy.constraints.iter();
    if let Some(constraint) = unmet.find(|constraint| !constraint.holds(labels)) {
        return Err(Refusal::Constrained {
            host: to.clone(),
            name: container.spec.name.clone(),
            constraint: constraint.to_string(),
        });
    }
    if container.host == *to {
        return Err(Refusal::AlreadyThere {
            name: container.spec.name.clone(),
            host: to.clone(),
        });
    }
    if container.status != Status::Running || container.desired != Desired::Running {
        let status = match (&container.status, container.desired) {
            (Status::Running, _) => "stopping".to_owned(),
            (other, _) => other.to_string(),
        };
        return Err(Refusal::NotRunning {
            name: container.spec.name.clone(),
            status,
        });
    }
    container.migration = Some(id.clone());
    let migration = Migration {
        id: id.clone(),
        container: container_id.clone(),
        name: container.spec.name.clone(),
        from: container.host.clone(),
        to: to.clone(),
        generation: container.generation,
        phase: Phase::Pending,
        error: None,
        failure: None,
        recovered: None,
        options: options.clone(),
        priority,
        // Until the queue lets it go, which is at once when it can.
        queued: true,
        drain,
        started_ms,
        freeze_started_ms: None,
        rounds: Vec::new(),
        times: MigrationTimes::default(),
    };
    state.migrations.insert(id.clone(), migration);
    Ok(Applied::Changed)
}

pub(super) fn advance(
    state: &mut State,
    id: &MigrationId,
    to: Phase,
    record: &Record,
) -> Result<Applied, Refusal> {
    let migration = state.migrations.get(id).ok_or_else(|| unknown(id))?;
    if migration.phase == to {
        return Ok(Applied::Unchanged);
    }
    // `Aborting` has its own command, with the reason.
    if to == Phase::Aborting || !phase::follows(migration.phase, to) {
        return Err(wrong_phase(migration, to));
    }
    let container_id = migration.container.clone();
    match to {
        Phase::Committed => {
            commit(state, id)?;
            drain::left(state, id);
        }
        Phase::Resumed => resumed(state, &container_id, record.pid),
        Phase::Done | Phase::Aborted => {
            if let Some(container) = state.containers.get_mut(&container_id) {
                container.migration = None;
            }
            if to == Phase::Aborted {
                drain::failed(state, id);
            }
        }
        _ => {}
    }
    let migration = state.migrations.get_mut(id).ok_or_else(|| unknown(id))?;
    migration.phase = to;
    if let (Phase::Aborted, Some(recovered)) = (to, &mut migration.recovered) {
        recovered.uncleared = record.uncleared;
    }
    migration.queued = false;
    write_down(migration, record);
    if to.is_final() {
        forget_old(state);
    }
    Ok(Applied::Changed)
}

/// The one commit point: from here on the container belongs to the destination.
fn commit(state: &mut State, id: &MigrationId) -> Result<(), Refusal> {
    let migration = state.migrations.get(id).ok_or_else(|| unknown(id))?;
    let container = state
        .containers
        .get_mut(&migration.container)
        .ok_or_else(|| Refusal::UnknownContainer {
            name: migration.name.to_string(),
        })?;
    if container.generation != migration.generation || container.host != migration.from {
        return Err(Refusal::StaleGeneration {
            given: migration.generation,
            current: container.generation,
        });
    }
    container.host = migration.to.clone();
    container.generation = migration.generation.next();
    container.pid = None;
    let network = container.spec.network.as_ref();
    if let Some(name) = network.map(|attachment| attachment.network.name.clone()) {
        network::touch(state, &name);
    }
    let moved = state.migrations.get(id).map(|m| m.container.clone());
    if let Some(container) = moved {
        volume::follow(state, &container);
    }
    Ok(())
}

/// Without a pid it has ended again already: its host reports how.
fn resumed(state: &mut State, container: &ContainerId, pid: Option<i32>) {
    if let Some(container) = state.containers.get_mut(container)
        && pid.is_some()
    {
        container.status = Status::Running;
        container.pid = pid;
    }
}

fn write_down(migration: &mut Migration, record: &Record) {
    let times = &mut migration.times;
    times.steps.extend(record.steps.iter().cloned());
    times.bytes += record.bytes;
    for (kept, given) in [
        (&mut times.predicted_freeze_us, record.predicted_freeze_us),
        (&mut times.freeze_us, record.freeze_us),
        (&mut times.total_us, record.total_us),
    ] {
        if given != 0 {
            *kept = given;
        }
    }
    if record.error.is_some() {
        migration.error.clone_from(&record.error);
    }
    migration.rounds.extend(record.rounds.iter().cloned());
    if record.freeze_started_ms.is_some() {
        migration.freeze_started_ms = record.freeze_started_ms;
    }
}

pub(super) fn abort(
    state: &mut State,
    id: &MigrationId,
    error: &str,
    failure: Option<FailureKind>,
) -> Result<Applied, Refusal> {
    let migration = state.migrations.get_mut(id).ok_or_else(|| unknown(id))?;
    if matches!(migration.phase, Phase::Aborting | Phase::Aborted) {
        return Ok(Applied::Unchanged);
    }
    if !phase::abortable(migration.phase) {
        return Err(Refusal::PastCommit {
            migration: id.clone(),
        });
    }
    migration.phase = Phase::Aborting;
    migration.error = Some(error.to_owned());
    migration.failure = failure;
    if migration.queued {
        // No host was asked anything: there is nothing to undo.
        advance(state, id, Phase::Aborted, &Record::default())?;
    }
    Ok(Applied::Changed)
}

pub(super) fn forget_old(state: &mut State) {
    let mut finished: Vec<_> = state
        .migrations
        .values()
        .filter(|m| m.phase.is_final() && m.recovered.is_none_or(|recovered| !recovered.uncleared))
        .map(|m| (m.started_ms, m.id.clone()))
        .collect();
    finished.sort();
    let surplus = finished.len().saturating_sub(HISTORY);
    for (_, id) in finished.into_iter().take(surplus) {
        state.migrations.remove(&id);
    }
}

pub(super) fn unknown(id: &MigrationId) -> Refusal {
    Refusal::UnknownMigration {
        migration: id.to_string(),
    }
}

fn wrong_phase(migration: &Migration, wanted: Phase) -> Refusal {
    Refusal::WrongPhase {
        migration: migration.id.clone(),
        phase: migration.phase,
        wanted,
    }
}
