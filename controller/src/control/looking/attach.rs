//! What is typed into a container. The stream follows it: what had not reached it on one host is
//! said again on the next.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use godwit_core::find_container;
use godwit_proto::{
    control::{ContainerRequest, SessionInput, SessionOutput, session_input, session_output},
    failure,
};
use godwit_types::{ContainerId, HostName, Status as ContainerStatus};
use tokio::sync::mpsc;
use tokio_stream::{
    StreamExt as _,
    wrappers::{ReceiverStream, UnboundedReceiverStream},
};
use tonic::{Status, Streaming};

use super::{QUEUE, Sender, client, require_running, typed::Typed};
use crate::{
    control::{invalid, lost, read},
    leader::Leader,
    member::Member,
};

/// Between two looks whether a container has come to where it goes.
const RETRY: Duration = Duration::from_millis(50);

pub async fn attach(
    member: Arc<Member>,
    leader: Arc<Leader>,
    mut inputs: Streaming<SessionInput>,
) -> Result<impl Stream<Item = Result<SessionOutput, Status>> + Send + use<>, Status> {
    let first = inputs.message().await?.and_then(|first| first.input);
    let Some(session_input::Input::Attach(request)) = first else {
        return Err(invalid("attach", "the first message is another"));
    };
    let state = read(&leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    require_running(&leader, container).map_err(failure::refused)?;
    let mut follower = Follower {
        member,
        leader: leader.clone(),
        id: container.id.clone(),
        typed: Typed::default(),
        inputs,
        ended: false,
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
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
    typed: Typed,
    inputs: Streaming<SessionInput>,
    /// Nothing more is typed.
    ended: bool,
}

impl Follower {
    async fn run(&mut self, sender: &Sender) -> Result<(), Status> {
        while let Some((host, moving)) = self.owner() {
            let passed = self.pass_on(&host, sender).await;
            let after = self.owner();
            let moved = moving
                || after
                    .as_ref()
                    .is_some_and(|(now, moving)| *moving || *now != host);
            match passed {
                // Left on purpose.
                Ok(true) => return Ok(()),
                // Its instance is gone, or the host is: it may be on its way.
                Ok(false) => {}
                Err(status) if !moved => return Err(status),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    /// Where it runs, and whether it is being moved. None: it has ended.
    fn owner(&self) -> Option<(HostName, bool)> {
        let state = self.leader.state();
        let container = state.containers.get(&self.id)?;
        let runs = matches!(container.status, ContainerStatus::Running);
        runs.then(|| (container.host.clone(), container.migration.is_some()))
    }

    /// Passes on to one host; whether that was left on purpose.
    async fn pass_on(&mut self, host: &HostName, sender: &Sender) -> Result<bool, Status> {
        let state = self.leader.state();
        let mut client = client(&self.member, &state, host)?;
        // What waits in it is bounded by what was typed and not taken.
        let (to_host, queue) = mpsc::unbounded_channel();
        let begin = SessionInput {
            input: Some(session_input::Input::Attach(ContainerRequest {
                container: self.id.to_string(),
            })),
        };
        let begin = tokio_stream::once(begin).chain(tokio_stream::iter(self.typed.again()));
        let mut outputs = client
            .attach(begin.chain(UnboundedReceiverStream::new(queue)))
            .await?
            .into_inner();
        let mut published = self.leader.raft.published();
        let mut left = false;
        loop {
            tokio::select! {
                output = outputs.message() => match output? {
                    Some(SessionOutput { output: Some(session_output::Output::Taken(all)) }) => {
                        self.typed.taken(all);
                    }
                    Some(output) => {
                        if sender.send(Ok(output)).await.is_err() {
                            return Ok(true);
                        }
                    }
                    None => return Ok(left),
                },
                input = self.inputs.message(), if !self.ended && !self.typed.is_full() => match input? {
                    Some(input) => {
                        let leaves = matches!(input.input, Some(session_input::Input::Detach(_)));
                        self.typed.note(&input);
                        // The host ends the stream once it has passed on what came before.
                        left |= leaves;
                        self.ended |= leaves;
                        if to_host.send(input).is_err() {
                            return Ok(left);
                        }
                    }
                    None => self.ended = true,
                },
                _ = published.changed() => {
                    let state = published.borrow_and_update().state.clone();
                    if state.containers.get(&self.id).is_none_or(|c| c.host != *host) {
                        return Ok(false);
                    }
                }
            }
        }
    }
}
