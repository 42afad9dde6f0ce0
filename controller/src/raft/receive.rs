//! Raft messages from the other members.

use std::{collections::BTreeMap, sync::Arc};

use godwit_proto::{
    authz, limits,
    raft::{
        RaftMessage,
        raft_server::{Raft as RaftService, RaftServer},
    },
    v1::Empty,
};
use protobuf::Message as _;
use raft::eraftpb::Message;
use tonic::{Request, Response, Status, Streaming};

use super::Raft;

/// The service that feeds `raft`. `ids` says which Raft id each member's name has.
pub fn service(raft: Arc<Raft>, ids: BTreeMap<String, u64>) -> RaftServer<impl RaftService> {
    RaftServer::new(Receiver { raft, ids }).max_decoding_message_size(limits::RAFT_MESSAGE)
}

struct Receiver {
    raft: Arc<Raft>,
    ids: BTreeMap<String, u64>,
}

#[tonic::async_trait]
impl RaftService for Receiver {
    async fn deliver(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Empty>, Status> {
        let caller = authz::require(&request, authz::Service::Raft)?;
        let from = *self
            .ids
            .get(&caller.name)
            .ok_or_else(|| Status::permission_denied("not a member of this group"))?;
        let mut stream = request.into_inner();
        while let Some(item) = stream.message().await? {
            // The stream's decoder has limited its size.
            let message = Message::parse_from_bytes(&item.message)
                .map_err(|_| Status::invalid_argument("not a raft message"))?;
            if message.from != from || message.to != self.raft.id() {
                return Err(Status::permission_denied(
                    "a member speaks for itself and to us alone",
                ));
            }
            self.raft.deliver(message);
        }
        Ok(Response::new(Empty {}))
    }
}
