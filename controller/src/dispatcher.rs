//! Sessions of agents: the gRPC edge of [`crate::leader::sessions`].

use std::{net::Ipv4Addr, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use godwit_core::Command;
use godwit_proto::{
    agent::{
        FromAgent, Hello, NotLeader, ToAgent, Welcome,
        dispatcher_server::{Dispatcher, DispatcherServer},
        from_agent, result, to_agent,
    },
    authz, document, limits,
};
use godwit_types::{
    AgentReport, CommandFailure, FailureKind, HostName, OperationId, ProgressReport,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    leader::{
        Leader,
        sessions::{ToAgentSender, to_agent_message},
    },
    member::Member,
};

/// Commands that an agent has not taken yet.
const QUEUE: usize = 256;
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

pub fn service(member: Arc<Member>) -> DispatcherServer<impl Dispatcher> {
    DispatcherServer::new(Service { member }).max_decoding_message_size(limits::MESSAGE)
}

struct Service {
    member: Arc<Member>,
}

#[tonic::async_trait]
impl Dispatcher for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToAgent, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = authz::require(&request, authz::Service::Dispatcher)?;
        let host = HostName::new(identity.name)
            .map_err(|reason| Status::permission_denied(reason.to_string()))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        match self.member.leader() {
            Some(leader) => {
                let scope = leader.scope.clone();
                scope.spawn(async move {
                    if let Err(status) =
                        session(&leader, &host, request.into_inner(), sender.clone()).await
                    {
                        warn!(%host, reason = status.message(), "session refused");
                        let _ = sender.try_send(Err(status));
                    }
                });
            }
            None => {
                let leader = self.member.leader_address().unwrap_or_default();
                let answer = to_agent::Message::NotLeader(NotLeader { leader });
                let _ = sender.try_send(Ok(to_agent_message(answer)));
            }
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn session(
    leader: &Arc<Leader>,
    host: &HostName,
    mut stream: Streaming<FromAgent>,
    sender: ToAgentSender,
) -> Result<(), Status> {
    let first = timeout(HELLO_TIMEOUT, stream.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello"))??;
    let Some(from_agent::Message::Hello(hello)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("a session begins with a hello"));
    };
    let report: AgentReport = document::read_field(hello.report.clone())?;
    introduce(leader, host, &hello).await?;
    let welcome = to_agent::Message::Welcome(Welcome {
        term: leader.term,
        heartbeat_ms: limits::HEARTBEAT.as_millis() as u32,
        members: Some(document::write(&leader.membership())),
    });
    // Before it is attached, so that nothing comes before it.
    let _ = sender.try_send(Ok(to_agent_message(welcome)));
    let number = leader.sessions.attach(host, sender, report.clone());
    info!(%host, address = %hello.address, "session began");
    leader.sync_networks(host);
    leader.observe(host, &report);
    let reason = loop {
        match stream.message().await {
            Ok(Some(message)) => match hear(leader, host, number, message) {
                Ok(true) => {}
                Ok(false) => break "another session took its place".to_owned(),
                Err(status) => break status.message().to_owned(),
            },
            Ok(None) => break "the agent ended it".to_owned(),
            Err(status) => break status.message().to_owned(),
        }
    };
    leader.sessions.detach(host, number);
    info!(%host, %reason, "session ended");
    Ok(())
}

/// Makes the host known before anything is asked of it.
async fn introduce(leader: &Leader, host: &HostName, hello: &Hello) -> Result<(), Status> {
    let underlay: Ipv4Addr = hello
        .underlay
        .parse()
        .map_err(|_| Status::invalid_argument("`underlay` is not an IPv4 address"))?;
    let known = leader.state().hosts.get(host).cloned();
    if known.is_some_and(|known| known.address == hello.address && known.underlay == underlay) {
        return Ok(());
    }
    let command = Command::HostSeen {
        name: host.clone(),
        address: hello.address.clone(),
        underlay,
    };
    let proposed = leader.raft.propose(&command).await;
    proposed.map_err(crate::control::status_of)?;
    Ok(())
}

/// False: the session is over.
fn hear(
    leader: &Arc<Leader>,
    host: &HostName,
    session: u64,
    message: FromAgent,
) -> Result<bool, Status> {
    match message.message {
        Some(from_agent::Message::Report(report)) => {
            let report: AgentReport = document::read(&report)?;
            let current = leader.sessions.heard(host, session, Some(report.clone()));
            if current {
                leader.observe(host, &report);
            }
            Ok(current)
        }
        Some(from_agent::Message::Result(answer)) => {
            let operation = OperationId::new(answer.operation)
                .map_err(|reason| Status::invalid_argument(reason.to_string()))?;
            let result = match answer.result {
                Some(result::Result::Outcome(outcome)) => document::read(&outcome).map_err(|_| {
                    CommandFailure::new(FailureKind::Internal, "the agent's answer can't be read")
                }),
                Some(result::Result::Failure(failure)) => Err(document::read(&failure)?),
                None => return Err(Status::invalid_argument("a result without a result")),
            };
            // An answer that comes by an old session is as good.
            leader.sessions.complete(host, &operation, result);
            Ok(leader.sessions.heard(host, session, None))
        }
        Some(from_agent::Message::Progress(said)) => {
            let said: ProgressReport = document::read(&said)?;
            let current = leader.sessions.heard(host, session, None);
            if current {
                leader.progress.hear(&leader.state(), host, said);
            }
            Ok(current)
        }
        Some(from_agent::Message::Hello(_)) => {
            Err(Status::invalid_argument("a session has one hello"))
        }
        None => Ok(leader.sessions.heard(host, session, None)),
    }
}
