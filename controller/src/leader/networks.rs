//! Endpoint tables to the hosts: to all that are live when a network changes, and all of them
//! to a host whose session begins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use godwit_core::{State, table};
use godwit_types::{AgentCommand, HostName, NetworkName, NetworkTable, Verb};
use tracing::warn;

use super::{Leader, sessions::AskError};
use crate::ids;

const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn run(leader: Arc<Leader>) {
    let mut published = leader.raft.published();
    let mut pushed: BTreeMap<NetworkName, u64> = BTreeMap::new();
    loop {
        let state = published.borrow_and_update().state.clone();
        for (name, network) in &state.networks {
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
