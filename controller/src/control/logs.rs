//! The log of a container, from whichever host has it. A follower of the log goes with the
//! container: the log moves with it, and the offset says where to go on.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use godwit_core::find_container;
use godwit_proto::{
    agent::{HostLogsRequest, host_service_client::HostServiceClient},
    control::{LogChunk, LogsRequest},
    failure,
};
use godwit_types::{ContainerId, HostName, Refusal, Status as ContainerStatus};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{lost, read};
use crate::{leader::Leader, member::Member};

const QUEUE: usize = 16;
const RETRY: Duration = Duration::from_millis(200);

type Sender = mpsc::Sender<Result<LogChunk, Status>>;

pub async fn stream(
    member: Arc<Member>,
    leader: Arc<Leader>,
    request: LogsRequest,
) -> Result<impl Stream<Item = Result<LogChunk, Status>> + Send + use<>, Status> {
    let state = read(&leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    if !leader.sessions.is_up(&container.host) {
        let host = container.host.clone();
        return Err(failure::refused(Refusal::HostDown { host }));
    }
    let id = container.id.clone();
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut follower = Follower {
            member,
            leader: leader.clone(),
            id,
            offset: request.from,
            request,
        };
        let result = tokio::select! {
            result = leader.scope.run(follower.run(&sender)) => result.unwrap_or_else(|| Err(lost())),
            () = sender.closed() => Ok(()),
        };
        if let Err(status) = result {
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

struct Follower {
    member: Arc<Member>,
    leader: Arc<Leader>,
    id: ContainerId,
    request: LogsRequest,
    offset: u64,
}

impl Follower {
    async fn run(&mut self, sender: &Sender) -> Result<(), Status> {
        while let Some((host, ended)) = self.owner() {
            let result = self.copy(&host, sender).await;
            let moved = self.owner().is_some_and(|(now, _)| now != host);
            let moving = self.moving();
            match result {
                // What the container wrote until it ended was sent before this.
                Ok(()) if !self.request.follow || (ended && !moved) => return Ok(()),
                Err(status) if !self.request.follow || !(moved || moving) => return Err(status),
                _ => {}
            }
            if !moved {
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// The owner, and whether the container has ended there. None: it was removed.
    fn owner(&self) -> Option<(HostName, bool)> {
        let state = self.leader.state();
        let container = state.containers.get(&self.id)?;
        let going = matches!(
            container.status,
            ContainerStatus::Running | ContainerStatus::Creating
        );
        Some((container.host.clone(), !going))
    }

    fn moving(&self) -> bool {
        let state = self.leader.state();
        let container = state.containers.get(&self.id);
        container.is_some_and(|container| container.migration.is_some())
    }

    /// Copies one host's stream until it ends, or the container belongs to another host.
    async fn copy(&mut self, host: &HostName, sender: &Sender) -> Result<(), Status> {
        let state = self.leader.state();
        let Some(known) = state.hosts.get(host) else {
            return Err(failure::refused(Refusal::HostDown { host: host.clone() }));
        };
        let mut client = HostServiceClient::new(self.member.host(host, &known.address));
        let request = HostLogsRequest {
            container: self.id.to_string(),
            follow: self.request.follow,
            skip: self.offset,
            tail: self.request.tail,
            since_ns: self.request.since_ns,
            until_ns: self.request.until_ns,
            timestamps: self.request.timestamps,
        };
        let mut stream = client.logs(request).await?.into_inner();
        let mut published = self.leader.raft.published();
        loop {
            tokio::select! {
                chunk = stream.message() => match chunk? {
                    Some(chunk) => {
                        self.offset = self.offset.max(chunk.offset);
                        // It is known now where the last lines began.
                        self.request.tail = None;
                        if sender.send(Ok(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                _ = published.changed(), if self.request.follow => {
                    let state = published.borrow_and_update().state.clone();
                    if state.containers.get(&self.id).is_none_or(|c| c.host != *host) {
                        return Ok(());
                    }
                }
            }
        }
    }
}
