//! What must hold whatever the commands were. Checked after every command in debug builds, and
//! by the tests that run whole clusters.

use std::collections::BTreeSet;

use godwit_types::{ContainerId, Phase, Status};

use crate::{
    queue::{is_under_way, next_to_start},
    roster::Roster,
    state::{Container, State},
};

/// Answers the first thing that does not hold in `now`, or between `before` and `now`.
pub fn check(before: &State, now: &State) -> Result<(), String> {
    Roster::check(&before.members, &now.members)?;
    let mut names = BTreeSet::new();
    for (id, container) in &now.containers {
        if *id != container.id {
            return Err(format!(
                "container {} is filed under another id",
                id.short()
            ));
        }
        if !names.insert(&container.spec.name) {
            return Err(format!("name `{}` is used twice", container.spec.name));
        }
        if !now.hosts.contains_key(&container.host) {
            return Err(format!("{} belongs to an unknown host", id.short()));
        }
        migration_of(now, container)?;
        address_of(now, container)?;
        if let Some(old) = before.containers.get(id) {
            owner_between(before, now, old, container)?;
        }
    }
    for (name, network) in &now.networks {
        if *name != network.spec.name {
            return Err(format!("network `{name}` is filed under another name"));
        }
        for (address, container) in &network.addresses {
            let holder = now.containers.get(container);
            let attached = holder.and_then(|c| c.spec.network.as_ref());
            if attached.is_none_or(|a| a.network.name != *name || a.address != *address) {
                return Err(format!("{address} in `{name}` is held by nobody"));
            }
        }
        let others = now.networks.values().filter(|o| o.spec.name != *name);
        for other in others {
            if other.spec.vni == network.spec.vni {
                return Err(format!("VNI {} is used twice", other.spec.vni));
            }
            if other.spec.subnet.overlaps(&network.spec.subnet) {
                return Err(format!("subnet of `{name}` overlaps another"));
            }
        }
        let version = before.networks.get(name).map_or(0, |old| old.version);
        if network.version < version {
            return Err(format!("version of network `{name}` fell"));
        }
    }
    let mut moving: BTreeSet<&ContainerId> = BTreeSet::new();
    for migration in now.active_migrations() {
        if !moving.insert(&migration.container) {
            return Err(format!(
                "{} is moved twice at once",
                migration.container.short()
            ));
        }
        let owner = now.containers.get(&migration.container);
        if owner.and_then(|c| c.migration.as_ref()) != Some(&migration.id) {
            return Err(format!("migration {} moves nothing", migration.id));
        }
    }
    crate::volume::check(now)?;
    within_limits(before, now)?;
    for (id, old) in &before.migrations {
        let new = now.migrations.get(id);
        let phase = new.map(|m| m.phase);
        let recovered = new.is_some_and(|new| new.recovered.is_some());
        let back = old.phase.is_committed() && phase.is_some_and(|phase| !phase.is_committed());
        if back && !(recovered && old.phase == Phase::Committed) {
            return Err(format!("migration {id} went back behind its commit"));
        }
        if old.recovered.is_some() && phase.is_some() && !recovered {
            return Err(format!("migration {id} forgot that it was recovered"));
        }
        if phase.is_none() && !old.phase.is_final() {
            return Err(format!("migration {id} vanished"));
        }
    }
    Ok(())
}

/// Limits that were lowered are met by and by: until then nothing starts beyond them.
fn within_limits(before: &State, now: &State) -> Result<(), String> {
    let under_way = || now.active_migrations().filter(|m| is_under_way(m));
    for migration in now.migrations.values() {
        let id = &migration.id;
        if migration.queued && migration.phase != Phase::Pending {
            return Err(format!("migration {id} is queued and {}", migration.phase));
        }
        let was = before.migrations.get(id);
        let started = is_under_way(migration)
            && migration.phase == Phase::Pending
            && was.is_none_or(|was| was.queued);
        if !started {
            continue;
        }
        let all = under_way().count();
        let out = under_way().filter(|m| m.from == migration.from).count();
        let into = under_way().filter(|m| m.to == migration.to).count();
        let beyond = |count: usize, limit: u32| count > limit as usize;
        if beyond(all, now.limits.cluster)
            || beyond(out, now.limits.out_of_host)
            || beyond(into, now.limits.into_host)
        {
            return Err(format!("migration {id} started beyond the limits"));
        }
    }
    if let Some(id) = next_to_start(now) {
        return Err(format!("migration {id} waits although it could start"));
    }
    for (name, host) in &now.hosts {
        let gone = |id: &&ContainerId| now.containers.get(*id).is_none_or(|c| c.host != *name);
        let failed = host.drain.iter().flat_map(|drain| drain.failed.keys());
        if let Some(id) = failed.clone().find(gone) {
            return Err(format!("{} left `{name}` and is kept there", id.short()));
        }
    }
    Ok(())
}

fn migration_of(now: &State, container: &Container) -> Result<(), String> {
    let Some(id) = &container.migration else {
        return Ok(());
    };
    let short = container.id.short();
    let migration = now
        .migrations
        .get(id)
        .filter(|m| m.container == container.id && !m.phase.is_final())
        .ok_or_else(|| format!("{short} names migration {id}, which does not move it"))?;
    if container.status == Status::Removing {
        return Err(format!("{short} is removed while it is moved"));
    }
    let (host, generation) = migration.owner();
    if container.host != *host || container.generation != generation {
        return Err(format!(
            "{short} belongs to `{}` by {}, but migration {id} is {}",
            container.host, container.generation, migration.phase
        ));
    }
    Ok(())
}

fn address_of(now: &State, container: &Container) -> Result<(), String> {
    let Some(attachment) = &container.spec.network else {
        return Ok(());
    };
    let holder = now
        .networks
        .get(&attachment.network.name)
        .and_then(|network| network.addresses.get(&attachment.address));
    if holder == Some(&container.id) {
        Ok(())
    } else {
        Err(format!(
            "{} does not hold its address",
            container.id.short()
        ))
    }
}

/// A container changes its owner by one commit alone, or by the recovery after it, and by one
/// generation.
fn owner_between(
    before: &State,
    now: &State,
    old: &Container,
    new: &Container,
) -> Result<(), String> {
    let short = new.id.short();
    if new.generation < old.generation {
        return Err(format!("generation of {short} fell"));
    }
    if old.host == new.host && old.generation == new.generation {
        return Ok(());
    }
    let committed = old.migration.as_ref().is_some_and(|id| {
        let was = before.migrations.get(id).map(|m| m.phase);
        let is = now.migrations.get(id);
        match is.map(|m| (m.phase, m.recovered.is_some())) {
            Some((Phase::Committed, false)) => was == Some(Phase::Staged),
            Some((Phase::Aborting, true)) => was == Some(Phase::Committed),
            _ => false,
        }
    });
    if committed && new.generation == old.generation.next() {
        Ok(())
    } else {
        Err(format!("{short} changed its owner without a commit"))
    }
}
