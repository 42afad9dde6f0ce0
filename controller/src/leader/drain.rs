//! Hosts that are to be left: as long as one has containers that nothing moves, migrations are
//! asked for. The queue of the state sees to it that they are not too many at once.
//!
//! What is wanted and what failed is in Raft. How long to wait before another attempt is in this
//! leader's memory alone: the next one waits anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use godwit_core::{Candidate, Command, Container, Left, State, backoff, choose, left_on};
use godwit_types::{ContainerId, HostName, MigrationOptions, Priority};
use tokio::time::{Duration, Instant, sleep};
use tracing::{info, warn};

use super::{Leader, fitness::against};
use crate::ids;

/// Between two looks when nothing changed in the state: a host may be up again, a pause over.
const LOOK: Duration = Duration::from_millis(250);
/// So many reasons are told of those that keep a container from every host.
const REASONS: usize = 4;

/// After so many attempts, when the next may be made.
type Pauses = BTreeMap<ContainerId, (u32, Instant)>;

pub(super) async fn run(leader: Arc<Leader>) {
    let mut published = leader.raft.published();
    let mut pauses = Pauses::new();
    loop {
        let state = published.borrow_and_update().state.clone();
        let hosts: Vec<_> = state.hosts.keys().cloned().collect();
        let mut draining: Vec<_> = hosts.clone();
        draining.retain(|host| state.is_draining(host));
        if !draining.is_empty() {
            leader.sessions.wait_elected(&hosts).await;
        }
        for host in &draining {
            leave(&leader, host, &mut pauses).await;
        }
        pauses.retain(|id, _| state.containers.contains_key(id));
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = sleep(LOOK), if !draining.is_empty() => {}
        }
    }
}

/// Asks for a migration of everything that may be moved now.
async fn leave(leader: &Leader, host: &HostName, pauses: &mut Pauses) {
    if !leader.sessions.is_up(host) {
        return;
    }
    let state = leader.state();
    for id in due(&state, host) {
        // Where it goes depends on where those before it go.
        let state = leader.state();
        let Some(container) = state.containers.get(&id).filter(|c| c.host == *host) else {
            continue;
        };
        if !may_try(&state, container, pauses) {
            continue;
        }
        let command = match destination(leader, &state, container) {
            Ok(to) => Command::StartMigration {
                id: ids::migration_id(),
                container: id,
                to,
                started_ms: ids::now_ms(),
                options: MigrationOptions::default(),
                priority: Priority::Low,
                drain: true,
            },
            Err(reason) => {
                info!(%host, container = id.short(), reason, "can't be moved away");
                Command::DrainFailed {
                    host: host.clone(),
                    container: id,
                    reason,
                    for_good: false,
                }
            }
        };
        if let Err(reason) = leader.raft.propose(&command).await {
            // What is still due is seen again.
            warn!(%host, %reason, "drain not written");
        }
    }
}

fn due(state: &State, host: &HostName) -> Vec<ContainerId> {
    left_on(state, host)
        .filter(|(_, left)| *left == Left::Due)
        .map(|(container, _)| container.id.clone())
        .collect()
}

/// Whether the pause after its last attempt is over.
fn may_try(state: &State, container: &Container, pauses: &mut Pauses) -> bool {
    let attempts = failed(state, container).map_or(0, |(attempts, _)| attempts);
    let new = (attempts, Instant::now() + backoff(attempts));
    let pause = pauses.entry(container.id.clone()).or_insert(new);
    if pause.0 != attempts {
        *pause = new;
    }
    pause.1 <= Instant::now()
}

/// How often it could not be moved, and whither the last time.
fn failed<'a>(state: &'a State, container: &Container) -> Option<(u32, Option<&'a HostName>)> {
    let drain = state.hosts.get(&container.host)?.drain.as_ref()?;
    let failed = drain.failed.get(&container.id)?;
    Some((failed.attempts, failed.to.as_ref()))
}

/// The best of the hosts that nothing speaks against; another one than where it failed, if there
/// is one. An error: why there is none.
fn destination(leader: &Leader, state: &State, container: &Container) -> Result<HostName, String> {
    let reports = leader.sessions.reports();
    let source = state.hosts.get(&container.host);
    let drain = source.and_then(|host| host.drain.as_ref());
    let wanted = |host: &&HostName| {
        drain.is_some_and(|drain| drain.to.is_empty() || drain.to.contains(*host))
    };
    let others = state.hosts.keys().filter(|host| **host != container.host);
    let mut fit = Vec::new();
    let mut reasons = BTreeSet::new();
    for host in others.filter(wanted) {
        match against(&reports, state, container, host).into_iter().next() {
            Some(refusal) => {
                reasons.insert(refusal.to_string());
            }
            None => fit.push(Candidate {
                host: host.clone(),
                up: true,
                has_image: true,
            }),
        }
    }
    let before = failed(state, container).and_then(|(_, to)| to);
    let mut elsewhere = fit.clone();
    elsewhere.retain(|candidate| Some(&candidate.host) != before);
    let found = choose(state, &elsewhere).or_else(|| choose(state, &fit));
    found.ok_or_else(|| why(&reasons))
}

fn why(reasons: &BTreeSet<String>) -> String {
    let told: Vec<_> = reasons.iter().take(REASONS).map(String::as_str).collect();
    match reasons.len() - told.len() {
        _ if told.is_empty() => "there is no other host that it may go to".to_owned(),
        0 => told.join("; "),
        more => format!("{}; and {more} more", told.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_reasons_are_told() {
        let of = |count: usize| why(&(0..count).map(|n| format!("r{n}")).collect());
        assert!(of(0).contains("no other host"));
        assert_eq!(of(2), "r0; r1");
        assert_eq!(of(9), "r0; r1; r2; r3; and 5 more");
    }
}
