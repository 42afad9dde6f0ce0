//! Which migrations wait, and which of them start next.
//!
//! The queue is not stored as such: it is every migration that is [`queued`](Migration::queued),
//! by priority and then by time. One of them starts as soon as its two hosts and the cluster have
//! room, whether those before it have or not: a host that is full must not keep the others idle.
//! [`apply`](crate::apply) asks after every change, so that members and leaders can't differ.

use std::{cmp::Reverse, collections::BTreeMap};

use godwit_types::{HostName, MigrationId, Phase};

use crate::state::{Migration, State};

/// How many migrations are under way, in all and by host.
#[derive(Debug, Default)]
struct Load<'a> {
    cluster: u32,
    out_of: BTreeMap<&'a HostName, u32>,
    into: BTreeMap<&'a HostName, u32>,
}

impl<'a> Load<'a> {
    fn of(state: &'a State) -> Self {
        let mut load = Self::default();
        state
            .active_migrations()
            .filter(|migration| is_under_way(migration))
            .for_each(|migration| load.add(migration));
        load
    }

    fn add(&mut self, migration: &'a Migration) {
        self.cluster += 1;
        *self.out_of.entry(&migration.from).or_default() += 1;
        *self.into.entry(&migration.to).or_default() += 1;
    }

    fn has_room(&self, state: &State, migration: &Migration) -> bool {
        let of = |load: &BTreeMap<&HostName, u32>, host| load.get(host).copied().unwrap_or(0);
        let limits = &state.limits;
        self.cluster < limits.cluster
            && of(&self.out_of, &migration.from) < limits.out_of_host
            && of(&self.into, &migration.to) < limits.into_host
    }
}

/// Whether it counts against the limits. One that is being undone does not: it sends nothing, and
/// may wait long for a host that is down.
pub(crate) fn is_under_way(migration: &Migration) -> bool {
    !migration.queued && !migration.phase.is_final() && migration.phase != Phase::Aborting
}

/// Every migration that waits, the first of the queue first.
pub fn queue(state: &State) -> Vec<&Migration> {
    let mut queue: Vec<_> = state.migrations.values().filter(|m| m.queued).collect();
    queue.sort_by_key(|m| (Reverse(m.priority), m.started_ms, &m.id));
    queue
}

/// Where this migration waits, from 1. None: it does not.
pub fn place(state: &State, migration: &MigrationId) -> Option<u32> {
    let at = queue(state).iter().position(|m| m.id == *migration)?;
    Some(at as u32 + 1)
}

/// The first of the queue that has room.
pub fn next_to_start(state: &State) -> Option<&MigrationId> {
    let load = Load::of(state);
    let mut queue = queue(state).into_iter();
    let next = queue.find(|migration| load.has_room(state, migration))?;
    Some(&next.id)
}
