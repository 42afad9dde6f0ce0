//! Raft messages to the other members: one long stream each, and a bounded queue before it.
//! Raft sends again what gets lost, so a full queue or a broken stream loses messages and says
//! so, and nothing here waits for anybody.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use godwit_proto::{
    limits,
    raft::{RaftMessage, raft_client::RaftClient},
    tls::{self, Role, Target},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tracing::{debug, info};

use super::driver::{Input, Inputs};

const QUEUE: usize = 256;
const BACKOFF: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Another member.
#[derive(Debug, Clone)]
pub struct Peer {
    pub id: u64,
    pub name: String,
    pub address: String,
}

/// The queues to all other members.
pub struct Outbox {
    queues: BTreeMap<u64, mpsc::Sender<RaftMessage>>,
}

impl Outbox {
    /// Starts one task per peer; they end when the outbox is dropped.
    pub fn start(
        peers: &[Peer],
        cluster: &str,
        client: &Arc<rustls::ClientConfig>,
        inputs: &Inputs,
    ) -> Self {
        let start = |peer: &Peer| {
            let (sender, queue) = mpsc::channel(QUEUE);
            let target = Target {
                address: peer.address.clone(),
                cluster: cluster.to_owned(),
                role: Role::Member,
                name: Some(peer.name.clone()),
            };
            let channel = tls::channel(client.clone(), target);
            tokio::spawn(deliver(peer.clone(), channel, queue, inputs.clone()));
            (peer.id, sender)
        };
        Self {
            queues: peers.iter().map(start).collect(),
        }
    }

    /// False: it was dropped.
    pub fn send(&self, to: u64, message: Vec<u8>) -> bool {
        let message = RaftMessage {
            message: message.into(),
        };
        self.queues
            .get(&to)
            .is_some_and(|queue| queue.try_send(message).is_ok())
    }
}

enum Pumped {
    /// The outbox is gone.
    Ended,
    /// The stream takes no more.
    Broken,
}

async fn deliver(
    peer: Peer,
    channel: Channel,
    mut queue: mpsc::Receiver<RaftMessage>,
    inputs: Inputs,
) {
    let mut backoff = BACKOFF;
    let mut reached = true;
    loop {
        let mut client =
            RaftClient::new(channel.clone()).max_encoding_message_size(limits::RAFT_MESSAGE);
        let (sender, stream) = mpsc::channel(1);
        let call = client.deliver(ReceiverStream::new(stream));
        tokio::pin!(call);
        let pump = async {
            let mut sent = 0u32;
            while let Some(message) = queue.recv().await {
                if sender.send(message).await.is_err() {
                    return Pumped::Broken;
                }
                sent += 1;
                // The stream holds one before it is connected: the third was taken from it.
                if sent == 3 && !reached {
                    reached = true;
                    backoff = BACKOFF;
                    info!(peer = %peer.name, "member is reachable");
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
        let reason = match answer {
            Ok(_) => "the stream was ended".to_owned(),
            Err(status) => status.message().to_owned(),
        };
        if reached {
            reached = false;
            info!(peer = %peer.name, %reason, "member is not reachable");
        } else {
            debug!(peer = %peer.name, %reason, "member is still not reachable");
        }
        inputs.send(Input::Unreachable(peer.id));
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        // What piled up meanwhile is old.
        while queue.try_recv().is_ok() {}
        if queue.is_closed() {
            return;
        }
    }
}
