//! Hosts that are to be left, and how many migrations may be under way at once.

use std::sync::Arc;

use godwit_core::{Command, drain_view};
use godwit_proto::{
    control::{DrainRequest, HostRequest, SetLimitsRequest},
    document, failure,
    v1::Document,
};
use godwit_types::{HostName, MigrationLimits, Refusal};
use tonic::Status;

use super::{read, run::find_host, status_of};
use crate::leader::Leader;

pub async fn begin(leader: &Arc<Leader>, request: DrainRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let host = find_host(&state, &request.host).map_err(failure::refused)?;
    let to = request.to.iter().map(|text| find_host(&state, text));
    let to = to.collect::<Result<_, Refusal>>();
    let command = Command::BeginDrain {
        host: host.clone(),
        to: to.map_err(failure::refused)?,
    };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(view_of(leader, &host).await)
}

pub async fn inspect(leader: &Arc<Leader>, request: HostRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let host = find_host(&state, &request.host).map_err(failure::refused)?;
    Ok(view_of(leader, &host).await)
}

pub async fn end(leader: &Arc<Leader>, request: HostRequest) -> Result<Document, Status> {
    let state = read(leader).await?;
    let host = find_host(&state, &request.host).map_err(failure::refused)?;
    let command = Command::EndDrain { host: host.clone() };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(view_of(leader, &host).await)
}

async fn view_of(leader: &Leader, host: &HostName) -> Document {
    // Right after an election no host is up yet, and none of them is down.
    let hosts = std::slice::from_ref(host);
    leader.sessions.wait_elected(hosts).await;
    let down = !leader.sessions.is_up(host);
    document::write(&drain_view(&leader.state(), host, down))
}

pub async fn set_limits(
    leader: &Arc<Leader>,
    request: SetLimitsRequest,
) -> Result<Document, Status> {
    let now = read(leader).await?.limits;
    let given = |value: u32, now: u32| if value == 0 { now } else { value };
    let limits = MigrationLimits {
        out_of_host: given(request.out_of_host, now.out_of_host),
        into_host: given(request.into_host, now.into_host),
        cluster: given(request.cluster, now.cluster),
    };
    let command = Command::SetLimits { limits };
    leader.raft.propose(&command).await.map_err(status_of)?;
    Ok(document::write(&limits))
}
