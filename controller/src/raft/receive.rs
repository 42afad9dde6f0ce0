//! Raft messages from the other members, and whether they may speak at all.

use std::{collections::BTreeMap, sync::Arc};

use godwit_proto::{
    authz, limits,
    raft::{
        Hello, RaftMessage,
        raft_server::{Raft as RaftService, RaftServer},
    },
    v1::Empty,
};
use protobuf::Message as _;
use raft::eraftpb::Message;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::{
    Peer, Raft,
    driver::{Input, Published},
};

/// The service that feeds `raft`. `configured`: the members as the configuration names them, for
/// as long as the state names none.
pub fn service(raft: Arc<Raft>, configured: Vec<Peer>) -> RaftServer<impl RaftService> {
    let receiver = Receiver {
        raft,
        configured,
        told: Mutex::default(),
    };
    RaftServer::new(receiver).max_decoding_message_size(limits::MESSAGE)
}

struct Receiver {
    raft: Arc<Raft>,
    configured: Vec<Peer>,
    /// Refusals that were logged, by who was refused: each once until there is another reason.
    told: Mutex<BTreeMap<String, String>>,
}

#[tonic::async_trait]
impl RaftService for Receiver {
    async fn deliver(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Empty>, Status> {
        let caller = authz::require(&request, authz::Service::Raft)?;
        let mut stream = request.into_inner();
        let heard = self.hear(&caller.name, &mut stream).await;
        if let Err(status) = &heard
            && std::error::Error::source(status).is_none()
        {
            self.tell(&caller.name, status.message());
        }
        heard.map(|()| Response::new(Empty {}))
    }
}

impl Receiver {
    async fn hear(&self, name: &str, stream: &mut Streaming<RaftMessage>) -> Result<(), Status> {
        let first = stream.message().await?;
        let hello = first.and_then(|first| first.hello);
        let hello =
            hello.ok_or_else(|| Status::invalid_argument("a stream begins with a hello"))?;
        self.greet(name, &hello).await?;
        self.forget(name);
        let mut message = Vec::new();
        while let Some(part) = stream.message().await? {
            // The stream's decoder has limited the part.
            if message.len() + part.message.len() > limits::RAFT_MESSAGE {
                return Err(Status::resource_exhausted(format!(
                    "a raft message of more than {} bytes",
                    limits::RAFT_MESSAGE
                )));
            }
            message.extend_from_slice(&part.message);
            if part.more {
                continue;
            }
            let whole = Message::parse_from_bytes(&message)
                .map_err(|_| Status::invalid_argument("not a raft message"))?;
            message.clear();
            if whole.from != hello.from || whole.to != self.raft.id() {
                return Err(Status::invalid_argument(
                    "a member speaks for itself and to us alone",
                ));
            }
            self.still_in(name, hello.from)?;
            // When the stream began this member may have been in no group yet.
            self.same_group(name, &hello.group)?;
            self.raft.deliver(whole);
        }
        if message.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid_argument("a raft message without its end"))
        }
    }

    async fn greet(&self, name: &str, hello: &Hello) -> Result<(), Status> {
        if hello.to != self.raft.id() {
            let own = self.raft.id();
            return Err(Status::permission_denied(format!(
                "this is the member with id {own}, not {}",
                hello.to
            )));
        }
        self.still_in(name, hello.from)?;
        let state = self.raft.state();
        let roster = &state.members;
        self.same_group(name, &hello.group)?;
        let known = roster.members.get(&hello.from).map(|m| m.name.to_string());
        let known = known.or_else(|| {
            let mut configured = self.configured.iter();
            configured
                .find(|peer| peer.id == hello.from)
                .map(|peer| peer.name.clone())
        });
        match known {
            Some(known) if known != name => {
                return Err(Status::permission_denied(format!(
                    "the id {} is of member `{known}`, not of `{name}`",
                    hello.from
                )));
            }
            // One that was added after what we know: its certificate makes it a member.
            None if hello.from <= roster.last => {
                return Err(Status::permission_denied(format!(
                    "no member has the id {}",
                    hello.from
                )));
            }
            _ => {}
        }
        let (answer, doubt) = oneshot::channel();
        self.raft.inputs.send(Input::Hello {
            peer: Peer {
                id: hello.from,
                name: name.to_owned(),
                address: hello.address.chars().take(300).collect(),
            },
            last: hello.last,
            answer,
        });
        match doubt.await {
            Ok(Some(reason)) => Err(Status::failed_precondition(format!(
                "member `{name}` can't take part: {reason}"
            ))),
            Ok(None) => Ok(()),
            Err(_) => Err(Status::unavailable("this member is busy or stopping")),
        }
    }

    fn same_group(&self, name: &str, theirs: &str) -> Result<(), Status> {
        let standing = self.raft.standing.borrow();
        let own = &standing.group;
        if own.is_empty() || theirs.is_empty() || own == theirs {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "member `{name}` has the log of another group, {}; this one is {}",
            short(theirs),
            short(own)
        )))
    }

    /// Who was taken out has nothing to say any more, once we know it ourselves.
    fn still_in(&self, name: &str, id: u64) -> Result<(), Status> {
        let published = self.raft.published.borrow();
        let Published { state, ids, .. } = &*published;
        if ids.contains(&id) || !state.members.gone.contains_key(&id) {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "member `{name}` (id {id}) was taken out of the group; to come back it is added again \
             and starts with an empty data directory"
        )))
    }

    fn tell(&self, name: &str, reason: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(name).is_none_or(|before| before != reason) {
            warn!(member = name, reason, "member refused");
            told.insert(name.to_owned(), reason.to_owned());
        }
    }

    fn forget(&self, name: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(name);
    }
}

fn short(group: &str) -> String {
    group
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect()
}
