//! Lists of what there is, and networks, which are little more.

use std::sync::Arc;

use godwit_core::{Command, container_views, find_network, host_views, network_view};
use godwit_proto::{
    control::{CreateNetworkRequest, NetworkRequest},
    document, failure,
    v1::{Document, Documents, Empty},
};
use godwit_types::{ByteSize, NetworkName};
use tonic::Status;

use super::{invalid, read, status_of};
use crate::leader::Leader;

pub async fn containers(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let views = container_views(&state, |host| leader.sessions.is_up(host));
    Ok(document::write_all(views))
}

pub async fn hosts(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let reports = leader.sessions.reports().into_iter();
    let seen = reports
        .map(|(name, (up, report))| {
            let mut facts = report.facts;
            // The facts are of the agent's start; room comes and goes.
            facts.disk_free = ByteSize(report.disk_free);
            (name, (up, Some(facts)))
        })
        .collect();
    Ok(document::write_all(host_views(&state, &seen)))
}

pub async fn networks(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let state = read(leader).await?;
    Ok(document::write_all(
        state
            .networks
            .values()
            .map(|network| network_view(&state, network)),
    ))
}

pub async fn create_network(
    leader: &Arc<Leader>,
    request: CreateNetworkRequest,
) -> Result<Document, Status> {
    let name =
        NetworkName::new(request.name.clone()).map_err(|reason| invalid(&request.name, reason))?;
    let subnet = match request.subnet.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|reason| invalid(text, reason))?),
    };
    let command = Command::CreateNetwork { name, subnet };
    leader.raft.propose(&command).await.map_err(status_of)?;
    let state = leader.state();
    let network = find_network(&state, &request.name).map_err(failure::refused)?;
    Ok(document::write(&network_view(&state, network)))
}

pub async fn inspect_network(
    leader: &Arc<Leader>,
    request: NetworkRequest,
) -> Result<Document, Status> {
    let state = read(leader).await?;
    let network = find_network(&state, &request.network).map_err(failure::refused)?;
    Ok(document::write(&network_view(&state, network)))
}

/// Hosts let go of it by and by.
pub async fn remove_network(
    leader: &Arc<Leader>,
    request: NetworkRequest,
) -> Result<Empty, Status> {
    let state = read(leader).await?;
    let network = find_network(&state, &request.network).map_err(failure::refused)?;
    let command = Command::RemoveNetwork {
        network: network.spec.name.clone(),
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(Empty {})
}
