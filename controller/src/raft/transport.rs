//! Raft messages to the other members: one long stream each, and a bounded queue before it.
//! Raft sends again what gets lost, so a full queue or a broken stream loses messages and says
//! so, and nothing here waits for anybody.
//!
//! A message larger than a part, which is a snapshot, goes in parts on a stream of its own:
//! heartbeats pass it, and whether it arrived is known when its stream ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use godwit_proto::{
    limits,
    raft::{Hello, RaftMessage, raft_client::RaftClient},
    tls::{self, Role, Target},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, transport::Channel};
use tracing::{debug, info, warn};

use super::driver::{Input, Inputs, Refused};

const QUEUE: usize = 256;
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: u64,
    pub name: String,
    pub address: String,
}

/// What a member says of its log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The group's id. Empty: not known yet.
    pub group: String,
    pub term: u64,
    /// The last entry that is on the disk.
    pub last: u64,
}

/// How to speak to others.
#[derive(Clone)]
pub struct Line {
    pub id: u64,
    /// Where we listen.
    pub address: String,
    pub cluster: String,
    pub client: Arc<rustls::ClientConfig>,
    pub inputs: Inputs,
    /// A larger message goes in parts of so many bytes.
    pub part: usize,
    pub standing: watch::Receiver<Standing>,
}

/// The queues to all other members.
pub struct Outbox {
    line: Line,
    runtime: Handle,
    queues: BTreeMap<u64, (Peer, mpsc::Sender<Vec<u8>>)>,
}

impl Outbox {
    /// To be called inside a tokio runtime. A task per peer runs until that is no peer any more,
    /// or the outbox is dropped.
    pub fn new(line: Line) -> Self {
        Self {
            line,
            runtime: Handle::current(),
            queues: BTreeMap::new(),
        }
    }

    /// These and no others.
    pub fn set_peers(&mut self, peers: Vec<Peer>) {
        self.queues
            .retain(|_, (known, _)| peers.iter().any(|peer| peer == known));
        // The caller is raft's own thread.
        let _inside = self.runtime.enter();
        for peer in peers {
            if self.queues.contains_key(&peer.id) {
                continue;
            }
            let (sender, queue) = mpsc::channel(QUEUE);
            let target = Target {
                address: peer.address.clone(),
                cluster: self.line.cluster.clone(),
                role: Role::Member,
                name: Some(peer.name.clone()),
            };
            let way = Way {
                channel: tls::channel(self.line.client.clone(), target),
                peer: peer.clone(),
                line: self.line.clone(),
            };
            tokio::spawn(way.deliver(queue));
            self.queues.insert(peer.id, (peer, sender));
        }
    }

    /// False: it was dropped.
    pub fn send(&self, to: u64, message: Vec<u8>) -> bool {
        self.queues
            .get(&to)
            .is_some_and(|(_, queue)| queue.try_send(message).is_ok())
    }
}

enum Pumped {
    /// The outbox is gone.
    Ended,
    /// The stream takes no more.
    Broken,
}

/// The way to one peer.
#[derive(Clone)]
struct Way {
    channel: Channel,
    peer: Peer,
    line: Line,
}

impl Way {
    async fn deliver(self, mut queue: mpsc::Receiver<Vec<u8>>) {
        let mut backoff = BACKOFF;
        let mut reached = true;
        let mut warned = false;
        loop {
            let (sender, stream) = mpsc::channel(1);
            let mut client = self.client();
            let call = client.deliver(ReceiverStream::new(stream));
            tokio::pin!(call);
            let pump = async {
                let mut sent = 0u32;
                if sender.send(self.hello(false)).await.is_err() {
                    return Pumped::Broken;
                }
                while let Some(message) = queue.recv().await {
                    if message.len() > self.line.part {
                        tokio::spawn(self.clone().deliver_aside(message));
                        continue;
                    }
                    if sender.send(part(message, false)).await.is_err() {
                        return Pumped::Broken;
                    }
                    sent += 1;
                    // The stream holds one before it is connected: the third was taken from it.
                    if sent == 3 && !reached {
                        reached = true;
                        backoff = BACKOFF;
                        info!(peer = %self.peer.name, "member is reachable");
                    }
                }
                Pumped::Ended
            };
            let answer = tokio::select! {
                answer = &mut call => answer,
                pumped = pump => match pumped {
                    Pumped::Ended => return,
                    Pumped::Broken => call.await,
                },
            };
            let reason = match &answer {
                Ok(_) => "the stream was ended".to_owned(),
                Err(status) => status.message().to_owned(),
            };
            if let Err(status) = &answer {
                self.hear_refusal(status, &mut warned);
            }
            if reached {
                reached = false;
                info!(peer = %self.peer.name, %reason, "member is not reachable");
            } else {
                debug!(peer = %self.peer.name, %reason, "member is still not reachable");
            }
            self.line.inputs.send(Input::Unreachable(self.peer.id));
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            // What piled up meanwhile is old.
            while queue.try_recv().is_ok() {}
            if queue.is_closed() {
                return;
            }
        }
    }

    /// One large message on a stream of its own.
    async fn deliver_aside(self, message: Vec<u8>) {
        let (sender, stream) = mpsc::channel(2);
        let mut client = self.client();
        let call = client.deliver(ReceiverStream::new(stream));
        let bytes = message.len();
        let pump = async {
            if sender.send(self.hello(true)).await.is_err() {
                return;
            }
            let parts = message.len().div_ceil(self.line.part);
            for (at, chunk) in message.chunks(self.line.part).enumerate() {
                let more = at + 1 < parts;
                if sender.send(part(chunk.to_vec(), more)).await.is_err() {
                    return;
                }
            }
            drop(sender);
        };
        let (answer, ()) = tokio::join!(call, pump);
        let whole = answer.is_ok();
        match answer {
            Ok(_) => info!(peer = %self.peer.name, bytes, "snapshot sent"),
            Err(status) => {
                info!(peer = %self.peer.name, reason = status.message(), "snapshot not sent");
            }
        }
        let peer = self.peer.id;
        self.line.inputs.send(Input::Delivered { peer, whole });
    }

    fn client(&self) -> RaftClient<Channel> {
        RaftClient::new(self.channel.clone()).max_encoding_message_size(limits::MESSAGE)
    }

    /// `aside`: beside another stream, whose messages may come first and say more.
    fn hello(&self, aside: bool) -> RaftMessage {
        let standing = self.line.standing.borrow().clone();
        RaftMessage {
            hello: Some(Hello {
                from: self.line.id,
                to: self.peer.id,
                address: self.line.address.clone(),
                group: standing.group,
                term: standing.term,
                last: if aside { u64::MAX } else { standing.last },
            }),
            ..RaftMessage::default()
        }
    }

    fn hear_refusal(&self, status: &Status, warned: &mut bool) {
        // A status without a source is the other member's own word.
        let known = status.code() == Code::FailedPrecondition;
        let other = status.code() == Code::PermissionDenied;
        if !(known || other) || std::error::Error::source(status).is_some() {
            return;
        }
        if !std::mem::replace(warned, true) {
            warn!(peer = %self.peer.name, reason = status.message(), "refused by a member");
        }
        self.line.inputs.send(Input::Refused(Refused {
            peer: self.peer.id,
            reason: format!("{} (said by `{}`)", status.message(), self.peer.name),
            known,
        }));
    }
}

fn part(message: Vec<u8>, more: bool) -> RaftMessage {
    RaftMessage {
        message: message.into(),
        more,
        hello: None,
    }
}
