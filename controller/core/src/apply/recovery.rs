//! The way back after the commit: the source owns the container again, by a third generation.
//!
//! Never for silence. Either the destination has said that it never resumed, and never will, or an
//! operator answers for it; who that was is kept.

use godwit_types::{FailureKind, MigrationId, Phase, Refusal, Status};

use super::{
    Applied,
    migration::{forget_old, unknown},
    network, volume,
};
use crate::state::{Recovered, RecoveredBy, State};

pub(super) fn take_back(
    state: &mut State,
    id: &MigrationId,
    by: RecoveredBy,
    error: &str,
) -> Result<Applied, Refusal> {
    let migration = state.migrations.get_mut(id).ok_or_else(|| unknown(id))?;
    if migration.recovered.is_some() {
        return Ok(Applied::Unchanged);
    }
    // From `Resumed` on the destination has said that it runs, and the source may be gone.
    let container = state.containers.get_mut(&migration.container);
    let (Phase::Committed, Some(container)) = (migration.phase, container) else {
        return Err(Refusal::NotRecoverable {
            migration: id.clone(),
            phase: migration.phase,
        });
    };
    migration.phase = Phase::Aborting;
    migration.error = Some(error.to_owned());
    migration.failure = match by {
        RecoveredBy::Destination => Some(FailureKind::NeverResumed),
        RecoveredBy::Operator => None,
    };
    migration.recovered = Some(Recovered {
        by,
        uncleared: false,
    });
    container.host = migration.from.clone();
    container.generation = container.generation.next();
    // What the destination said of its copy is of no more account: the source has a frozen one.
    container.status = Status::Running;
    container.pid = None;
    let network = container.spec.network.as_ref();
    if let Some(name) = network.map(|attachment| attachment.network.name.clone()) {
        network::touch(state, &name);
    }
    let moved = state.migrations.get(id).map(|m| m.container.clone());
    if let Some(container) = moved {
        volume::follow(state, &container);
    }
    Ok(Applied::Changed)
}

pub(super) fn cleared(state: &mut State, id: &MigrationId) -> Applied {
    let migration = state.migrations.get_mut(id);
    let recovered = migration.and_then(|migration| migration.recovered.as_mut());
    match recovered {
        Some(recovered) if recovered.uncleared => {
            recovered.uncleared = false;
            forget_old(state);
            Applied::Changed
        }
        _ => Applied::Unchanged,
    }
}
