//! Endpoint tables to the hosts: to all that are live when a network changes, and all of them
//! to a host whose session begins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use godwit_core::{State, table};
use godwit_types::{AgentCommand, HostName, NetworkName, NetworkSpec, NetworkTable, Verb};
use tracing::warn;

use super::{Leader, sessions::AskError};
use crate::ids;

const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(leader: Arc<Leader>) {
    let mut published = leader.raft.published();
    let mut pushed: BTreeMap<NetworkName, u64> = BTreeMap::new();
    let mut known: BTreeMap<NetworkName, NetworkSpec> = BTreeMap::new();
    loop {
        let state = published.borrow_and_update().state.clone();
        let gone: Vec<_> = known
            .iter()
            .filter(|(name, spec)| state.networks.get(*name).map(|n| &n.spec) != Some(*spec))
            .map(|(name, spec)| (name.clone(), spec.clone()))
            .collect();
        for (name, spec) in gone {
            known.remove(&name);
            pushed.remove(&name);
            for host in leader.sessions.live() {
                take_back(&leader, host, spec.clone());
            }
        }
        for (name, network) in &state.networks {
            known.insert(name.clone(), network.spec.clone());
            if pushed.get(name) == Some(&network.version) {
                continue;
            }
            pushed.insert(name.clone(), network.version);
            let table = table(&state, network);
            for host in leader.sessions.live() {
                push(&leader, host, table.clone());
            }
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

pub(super) fn push_all(leader: &Arc<Leader>, host: &HostName) {
    let state = leader.state();
    for network in state.networks.values() {
        push(leader, host.clone(), table(&state, network));
    }
}

fn is_current(state: &State, table: &NetworkTable) -> bool {
    let network = state.networks.get(&table.network.name);
    network.is_some_and(|network| network.version == table.version)
}

/// Once: a host that is not there now lets go of it when it has another one of that number.
fn take_back(leader: &Arc<Leader>, host: HostName, network: NetworkSpec) {
    let (held, scope) = (leader.clone(), leader.scope.clone());
    scope.spawn(async move {
        let name = network.name.clone();
        let command = AgentCommand {
            operation: ids::operation_id(),
            verb: Verb::RemoveNetwork { network },
        };
        if let Err(AskError::Failed(failure)) = held.sessions.ask(&host, command).await {
            warn!(%host, network = %name, error = %failure.message, "network not removed");
        }
    });
}

fn push(leader: &Arc<Leader>, host: HostName, table: NetworkTable) {
    let (held, scope) = (leader.clone(), leader.scope.clone());
    scope.spawn(async move {
        let leader = held;
        loop {
            // A new id every time: an agent must not take it for done after its host restarted.
            let command = AgentCommand {
                operation: ids::operation_id(),
                verb: Verb::SyncNetwork {
                    table: table.clone(),
                },
            };
            match leader.sessions.ask(&host, command).await {
                // A host that is down gets every table when it comes back.
                Ok(_) | Err(AskError::HostDown(_)) => return,
                Err(AskError::Failed(failure)) => {
                    warn!(%host, network = %table.network.name, error = %failure.message,
                        "network table not applied");
                }
            }
            tokio::time::sleep(RETRY).await;
            if !is_current(&leader.state(), &table) {
                return;
            }
        }
    });
}
