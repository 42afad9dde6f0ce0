//! The state as people read it. What only the leader's memory knows comes in as arguments.

use std::collections::BTreeMap;

use godwit_types::{
    ContainerView, DrainLeft, DrainView, HostFacts, HostName, HostView, MigrationMode,
    MigrationView, NetworkEndpoint, NetworkView, Progress, Refusal,
};

use crate::{
    drain::{Left, left_on},
    queue::place,
    state::{Container, Migration, Network, State},
};

pub fn container_view(container: &Container, host_up: bool) -> ContainerView {
    ContainerView {
        id: container.id.clone(),
        name: container.spec.name.clone(),
        status: container.status.clone(),
        host: container.host.clone(),
        host_up,
        generation: container.generation,
        pid: container.pid,
        created_ms: container.created_ms,
        migration: container.migration.clone(),
        spec: container.spec.clone(),
        details: container.details.clone(),
    }
}

/// Every container, the newest first.
pub fn container_views(state: &State, up: impl Fn(&HostName) -> bool) -> Vec<ContainerView> {
    let mut views: Vec<_> = state
        .containers
        .values()
        .map(|container| container_view(container, up(&container.host)))
        .collect();
    views.sort_by(|a, b| b.created_ms.cmp(&a.created_ms).then(a.id.cmp(&b.id)));
    views
}

/// Every host; `seen` has those in contact with whether they are up, and their facts.
pub fn host_views(
    state: &State,
    seen: &BTreeMap<HostName, (bool, Option<HostFacts>)>,
) -> Vec<HostView> {
    let view = |(name, host): (&HostName, &crate::state::Host)| {
        let (up, facts) = seen.get(name).cloned().unwrap_or((false, None));
        HostView {
            name: name.clone(),
            up,
            address: host.address.clone(),
            containers: state.owned_by(name).count() as u32,
            draining: host.drain.is_some(),
            facts,
            labels: host.labels.clone(),
        }
    };
    state.hosts.iter().map(view).collect()
}

pub fn network_view(state: &State, network: &Network) -> NetworkView {
    let holders = network.addresses.iter();
    let mut endpoints: Vec<_> = holders
        .filter_map(|(address, id)| {
            let container = state.containers.get(id)?;
            Some(NetworkEndpoint {
                name: container.spec.name.clone(),
                address: *address,
                host: container.host.clone(),
                aliases: container.spec.options.ports.aliases.clone(),
            })
        })
        .collect();
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    NetworkView {
        name: network.spec.name.clone(),
        subnet: network.spec.subnet,
        gateway: network.spec.subnet.gateway(),
        vni: network.spec.vni,
        containers: network.addresses.len() as u32,
        endpoints,
    }
}

/// How far the drain of this host is. `down`: it is out of contact.
pub fn drain_view(state: &State, host: &HostName, down: bool) -> DrainView {
    let drain = state.hosts.get(host).and_then(|host| host.drain.as_ref());
    let left = |(container, left): (&Container, Left)| {
        let migration = container.migration.as_ref();
        let migration = migration.and_then(|id| state.migrations.get(id));
        let failed = drain.and_then(|drain| drain.failed.get(&container.id));
        // What can't be asked now says more than what it answered before.
        let reason = match left {
            Left::Ended => Some(Refusal::NotRunning {
                name: container.spec.name.clone(),
                status: container.status.to_string(),
            }),
            Left::Due if down => Some(Refusal::HostDown { host: host.clone() }),
            _ => None,
        };
        let stuck = reason.is_some() || left == Left::GivenUp;
        DrainLeft {
            container: container.id.clone(),
            name: container.spec.name.clone(),
            status: container.status.clone(),
            migration: migration.map(|m| m.id.clone()),
            phase: migration.map(|m| m.phase),
            to: migration.map(|m| m.to.clone()),
            place: migration.and_then(|m| place(state, &m.id)),
            attempts: failed.map_or(0, |failed| failed.attempts),
            reason: reason
                .map(|refusal| refusal.to_string())
                .or_else(|| failed.map(|failed| failed.reason.clone())),
            stuck,
        }
    };
    let mut left: Vec<_> = left_on(state, host).map(left).collect();
    left.sort_by(|a, b| a.name.cmp(&b.name));
    DrainView {
        host: host.clone(),
        draining: drain.is_some(),
        moved: drain.map_or(0, |drain| drain.moved),
        left,
    }
}

/// `progress`: what its source said last, if it is still at it. `precopy_problem`: why that host
/// can't send memory ahead of a freeze. `awaits`: what the leader waits for.
pub fn migration_view(
    state: &State,
    migration: &Migration,
    progress: Option<Progress>,
    precopy_problem: Option<&str>,
    awaits: Option<String>,
) -> MigrationView {
    MigrationView {
        id: migration.id.clone(),
        container: migration.container.clone(),
        name: migration.name.clone(),
        from: migration.from.clone(),
        to: migration.to.clone(),
        phase: migration.phase,
        error: migration.error.clone(),
        note: note(migration, precopy_problem),
        failure: migration.failure,
        recovered: migration.recovered.is_some(),
        awaits,
        options: migration.options.clone(),
        priority: migration.priority,
        place: place(state, &migration.id),
        started_ms: migration.started_ms,
        rounds: migration.rounds.clone(),
        progress,
        times: migration.times.clone(),
    }
}

/// Who let the cluster choose is told when there was no choice.
fn note(migration: &Migration, precopy_problem: Option<&str>) -> Option<String> {
    let stopped = migration.options.mode == MigrationMode::Auto && migration.rounds.is_empty();
    let text = stopped_only(&migration.from, precopy_problem?);
    stopped.then_some(text)
}

/// What moves from a host that can't send memory ahead of a freeze.
pub fn stopped_only(from: &HostName, problem: &str) -> String {
    format!("host `{from}` sends all memory in the freeze: {problem}")
}
