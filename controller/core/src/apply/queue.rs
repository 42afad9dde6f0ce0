//! The queue after a change: who must leave it, and who may start.

use godwit_types::{MigrationLimits, Refusal, Status};

use super::{Applied, drain, migration};
use crate::{
    queue::{next_to_start, queue},
    state::{Migration, State},
};

pub(super) fn set_limits(state: &mut State, limits: &MigrationLimits) -> Result<Applied, Refusal> {
    limits.check().map_err(|error| Refusal::Invalid {
        what: format!("{} {}", error.option, error.given),
        problem: error.problem,
    })?;
    if state.limits == *limits {
        return Ok(Applied::Unchanged);
    }
    state.limits = *limits;
    Ok(Applied::Changed)
}

/// Follows every command that changed something.
pub(super) fn settle(state: &mut State) {
    let refused: Vec<_> = queue(state)
        .into_iter()
        .filter_map(|migration| Some((migration.id.clone(), against(state, migration)?)))
        .collect();
    for (id, reason) in refused {
        // It is queued: it can be taken back.
        let _ = migration::abort(state, &id, &reason, None);
    }
    drain::forget_gone(state);
    while let Some(id) = next_to_start(state).cloned() {
        if let Some(migration) = state.migrations.get_mut(&id) {
            migration.queued = false;
        }
    }
}

/// Why a queued migration can't start any more, whenever its turn were.
fn against(state: &State, migration: &Migration) -> Option<String> {
    let container = state.containers.get(&migration.container)?;
    if container.status != Status::Running {
        let refusal = Refusal::NotRunning {
            name: container.spec.name.clone(),
            status: container.status.to_string(),
        };
        return Some(refusal.to_string());
    }
    if state.is_draining(&migration.to) {
        let host = migration.to.clone();
        return Some(Refusal::HostDraining { host }.to_string());
    }
    (migration.drain && !state.is_draining(&migration.from))
        .then(|| format!("the drain of host `{}` was ended", migration.from))
}
