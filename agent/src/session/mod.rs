//! The session with the leader.
//!
//! ```text
//! try a member ──Hello──▶ NotLeader{leader} ─▶ try that one
//!       ▲                 Welcome ─▶ commands in, answers and reports out
//!       └── short pause ◀── stream ended, connection broke ──┘
//! ```
//!
//! It only carries: what a command means is `container`'s, and commands under way go on when a
//! session ends. One task writes to the stream, so that a report never overtakes the answer
//! that it should agree with.

mod disorder;
mod known;
mod members;
mod pause;

use std::{
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use godwit_proto::{
    agent::{
        FromAgent, Hello, Result as AgentResult, ToAgent, dispatcher_client::DispatcherClient,
        from_agent, result, to_agent,
    },
    config::MemberAddress,
    document,
    failure::chain,
    limits,
    tls::{self, Role},
};
use godwit_types::{AgentCommand, Membership, OperationId};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::{host::Host, ledger::Answer, progress};
use disorder::Delivery;
pub use known::Known;
use members::{Members, Next};

/// Messages between this task and the connection.
const OUT: usize = 32;

/// What the leader is told of this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `address:port` where this agent serves.
    pub address: String,
    pub underlay: Ipv4Addr,
    pub members: Vec<MemberAddress>,
    /// The members that a leader named later.
    pub known: Known,
}

/// How a try ended.
enum Ended {
    NotLeader {
        leader: String,
    },
    /// No answer came at all.
    Unreachable(String),
    /// A session there was, and is no more.
    Lost(String),
}

/// Keeps a session, for ever.
pub async fn keep(host: Arc<Host>, settings: Settings) {
    let mut members = Members::new(settings.known.merge(&settings.members));
    let delivery = Delivery::of(&host);
    let mut failures = 0;
    loop {
        let next = members.next();
        let patience = pause::patience(failures);
        let way = Way {
            next: &next,
            patience,
            delivery: &delivery,
        };
        match hold(&host, &settings, &mut members, &way).await {
            Ended::NotLeader { leader } => {
                debug!(member = %next.address, leader, "member does not lead");
                failures += 1;
                if members.suggest(&leader) && failures == 1 {
                    continue;
                }
            }
            Ended::Unreachable(reason) => {
                failures += 1;
                // Once for every outage that is not over in a moment.
                if failures == 2 * settings.members.len() as u32 {
                    warn!(member = %next.address, reason, "no leader found yet");
                } else {
                    debug!(member = %next.address, reason, "member not reached");
                }
            }
            Ended::Lost(reason) => {
                warn!(leader = %next.address, reason, "session ended");
                failures = 0;
            }
        }
        tokio::time::sleep(pause::delay(failures)).await;
    }
}

/// What one try has.
struct Way<'a> {
    next: &'a Next,
    patience: Duration,
    delivery: &'a Delivery,
}

/// One try: ends when the session does.
async fn hold(
    host: &Arc<Host>,
    settings: &Settings,
    members: &mut Members,
    way: &Way<'_>,
) -> Ended {
    let Way {
        next,
        patience,
        delivery,
    } = *way;
    let target = host.peer(Role::Member, next.name.as_deref(), &next.address);
    let mut client = DispatcherClient::new(tls::channel(host.tls.clone(), target))
        .max_decoding_message_size(limits::MESSAGE);
    let (out, outgoing) = mpsc::channel(OUT);
    // Marked as seen before the report is made: a change after it is reported again.
    let mut changes = host.board.changes();
    changes.mark_unchanged();
    let hello = Hello {
        address: settings.address.clone(),
        underlay: settings.underlay.to_string(),
        report: Some(document::write(&host.report())),
    };
    let hello = from_agent::Message::Hello(hello);
    out.try_send(FromAgent {
        message: Some(hello),
    })
    .expect("the channel is empty");

    let begin = async {
        let mut inbound = client
            .session(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first))
    };
    let (inbound, first) = match timeout(patience, begin).await {
        Err(_) => return Ended::Unreachable(format!("no answer in {patience:?}")),
        Ok(Err(status)) => return Ended::Unreachable(text(&status)),
        Ok(Ok((inbound, first))) => (inbound, first.and_then(|first| first.message)),
    };
    let welcome = match first {
        Some(to_agent::Message::Welcome(welcome)) => welcome,
        Some(to_agent::Message::NotLeader(not)) => return Ended::NotLeader { leader: not.leader },
        Some(to_agent::Message::Command(_)) | None => {
            return Ended::Unreachable("the session ended before it began".to_owned());
        }
    };
    info!(leader = %next.address, term = welcome.term, "session began");
    let said = welcome.members.as_ref().map(document::read::<Membership>);
    let said = said.and_then(Result::ok);
    if let Some(now) = said.and_then(|said| settings.known.learn(&said, &settings.members)) {
        members.set(now);
    }
    let heartbeat = match welcome.heartbeat_ms {
        0 => limits::HEARTBEAT,
        asked => {
            Duration::from_millis(asked.into()).clamp(limits::HEARTBEAT / 5, limits::HEARTBEAT * 10)
        }
    };
    host.connected.store(true, Ordering::Relaxed);
    let reason = talk(host, inbound, out, changes, heartbeat, delivery).await;
    host.connected.store(false, Ordering::Relaxed);
    Ended::Lost(reason)
}

/// Answers why the session ended.
async fn talk(
    host: &Arc<Host>,
    mut inbound: Streaming<ToAgent>,
    out: mpsc::Sender<FromAgent>,
    mut changes: tokio::sync::watch::Receiver<u64>,
    heartbeat: Duration,
    delivery: &Delivery,
) -> String {
    let mut answers = host.outbox.open();
    let mut progress_from = Instant::now();
    let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            // The freeze waits for answers and commands; reports can wait.
            Some((operation, answer)) = answers.recv() => answered(&operation, answer),
            message = inbound.message() => match message {
                Ok(Some(ToAgent { message: Some(message) })) => {
                    receive(host, message, delivery);
                    continue;
                }
                // Of a kind that this version does not know.
                Ok(Some(ToAgent { message: None })) => continue,
                Ok(None) => return "the member ended it".to_owned(),
                Err(status) => return text(&status),
            },
            Ok(()) = changes.changed() => {
                beat.reset();
                report(host)
            }
            _ = beat.tick() => report(host),
            said = host.progress.next(progress_from) => {
                progress_from = Instant::now() + progress::PAUSE;
                from_agent::Message::Progress(document::write(&said))
            }
        };
        // A full channel means that the connection takes nothing: the leader is not there.
        let sent = timeout(
            limits::SESSION_TIMEOUT,
            out.send(FromAgent {
                message: Some(message),
            }),
        );
        match sent.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return "the connection is closed".to_owned(),
            Err(_) => return "the connection takes nothing any more".to_owned(),
        }
    }
}

fn receive(host: &Arc<Host>, message: to_agent::Message, delivery: &Delivery) {
    match message {
        to_agent::Message::Command(document) => match document::read::<AgentCommand>(&document) {
            Ok(command) => {
                debug!(operation = %command.operation, verb = command.verb.name(), "command");
                delivery.deliver(host, command);
            }
            Err(error) => warn!(error = chain(&error), "command not understood"),
        },
        to_agent::Message::Welcome(_) | to_agent::Message::NotLeader(_) => {
            warn!("the leader introduced itself twice");
        }
    }
}

fn report(host: &Host) -> from_agent::Message {
    from_agent::Message::Report(document::write(&host.report()))
}

fn answered(operation: &OperationId, answer: Answer) -> from_agent::Message {
    from_agent::Message::Result(AgentResult {
        operation: operation.to_string(),
        result: Some(match answer {
            Ok(outcome) => result::Result::Outcome(document::write(&outcome)),
            Err(failure) => result::Result::Failure(document::write(&failure)),
        }),
    })
}

/// A status in one line: tonic hides the reason of a broken connection in its sources.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
