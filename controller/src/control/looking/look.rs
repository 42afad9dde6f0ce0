//! A question about a container, asked of the host that has it now.

use std::sync::Arc;

use godwit_core::find_container;
use godwit_proto::{control::LookRequest, failure, v1::Documents};
use godwit_types::Refusal;
use tonic::Status;

use super::client;
use crate::{control::read, leader::Leader, member::Member};

pub async fn look(
    member: &Arc<Member>,
    leader: &Leader,
    mut request: LookRequest,
) -> Result<Documents, Status> {
    let state = read(leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    if !leader.sessions.is_up(&container.host) {
        let host = container.host.clone();
        return Err(failure::refused(Refusal::HostDown { host }));
    }
    request.container = container.id.to_string();
    let mut client = client(member, &state, &container.host)?;
    Ok(client.look(request).await?.into_inner())
}
