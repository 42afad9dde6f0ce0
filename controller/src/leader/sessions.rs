//! The agents in contact: what each said last, and the commands that wait for its answer.
//!
//! A command outlives its session: when a host comes back, what was not answered is sent again
//! by the same operation id. A host that was silent for too long is down, and whoever waits for
//! it is told so.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use godwit_proto::{
    agent::{ToAgent, to_agent},
    document, limits,
};
use godwit_types::{AgentCommand, AgentReport, CommandFailure, HostName, OperationId, Outcome};
use tokio::sync::{mpsc, oneshot, watch};

/// After an election agents need a moment to find the new leader.
const PATIENCE: Duration = Duration::from_secs(6);

/// The same, for one who is waiting for an answer: longer than the longest pause of an agent
/// between two attempts.
const ELECTED: Duration = Duration::from_secs(3);

pub type ToAgentSender = mpsc::Sender<Result<ToAgent, tonic::Status>>;

/// Why a host did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Failed(#[from] CommandFailure),
    /// It may be doing it. Asking again by the same operation id is harmless.
    #[error("host `{0}` is down")]
    HostDown(HostName),
}

type Reply = Result<Outcome, AskError>;

struct Link {
    session: u64,
    sender: ToAgentSender,
}

struct Pending {
    command: AgentCommand,
    answers: Vec<oneshot::Sender<Reply>>,
}

struct Slot {
    link: Option<Link>,
    heard: Option<Instant>,
    /// Until then a silent host is not given up.
    patience: Instant,
    report: Option<AgentReport>,
    pending: BTreeMap<OperationId, Pending>,
}

impl Slot {
    fn up(&self) -> bool {
        self.link.is_some() && self.heard_lately()
    }

    fn heard_lately(&self) -> bool {
        self.heard
            .is_some_and(|at| at.elapsed() < limits::SESSION_TIMEOUT)
    }

    fn given_up(&self) -> bool {
        !self.heard_lately() && Instant::now() > self.patience
    }

    fn send(&mut self, command: &AgentCommand) {
        let message = to_agent::Message::Command(document::write(command));
        if let Some(link) = &self.link
            && link.sender.try_send(Ok(to_agent_message(message))).is_err()
        {
            // It takes nothing any more: its agent will come back.
            self.link = None;
        }
    }
}

pub fn to_agent_message(message: to_agent::Message) -> ToAgent {
    ToAgent {
        message: Some(message),
    }
}

/// All hosts as this leader sees them.
pub struct Sessions {
    slots: Mutex<BTreeMap<HostName, Slot>>,
    began: Instant,
    next: Mutex<u64>,
    changed: watch::Sender<u64>,
}

impl Sessions {
    pub fn new() -> Self {
        Self {
            slots: Mutex::default(),
            began: Instant::now(),
            next: Mutex::new(0),
            changed: watch::Sender::new(0),
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<HostName, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// A session begins; one that the host had before is over. Answers its number.
    pub fn attach(&self, host: &HostName, sender: ToAgentSender, report: AgentReport) -> u64 {
        let session = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        {
            let mut slots = self.slots();
            let slot = slots.entry(host.clone()).or_insert_with(|| self.slot());
            slot.link = Some(Link { session, sender });
            slot.heard = Some(Instant::now());
            slot.report = Some(report);
            // What nobody waits for any more is not done late.
            slot.pending.retain(|_, pending| {
                pending.answers.retain(|answer| !answer.is_closed());
                !pending.answers.is_empty()
            });
            let again: Vec<_> = slot.pending.values().map(|p| p.command.clone()).collect();
            for command in again {
                slot.send(&command);
            }
        }
        self.notify();
        session
    }

    fn slot(&self) -> Slot {
        Slot {
            link: None,
            heard: None,
            patience: self.began + PATIENCE,
            report: None,
            pending: BTreeMap::new(),
        }
    }

    /// The stream of this session ended.
    pub fn detach(&self, host: &HostName, session: u64) {
        if let Some(slot) = self.slots().get_mut(host)
            && slot.link.as_ref().is_some_and(|l| l.session == session)
        {
            slot.link = None;
        }
        self.notify();
    }

    /// Something was heard. False: the session is not the host's any more.
    pub fn heard(&self, host: &HostName, session: u64, report: Option<AgentReport>) -> bool {
        let mut slots = self.slots();
        let Some(slot) = slots.get_mut(host) else {
            return false;
        };
        if slot.link.as_ref().is_none_or(|l| l.session != session) {
            return false;
        }
        slot.heard = Some(Instant::now());
        if report.is_some() {
            slot.report = report;
        }
        true
    }

    /// An agent's answer.
    pub fn complete(
        &self,
        host: &HostName,
        operation: &OperationId,
        result: Result<Outcome, CommandFailure>,
    ) {
        let pending = self
            .slots()
            .get_mut(host)
            .and_then(|slot| slot.pending.remove(operation));
        for answer in pending.into_iter().flat_map(|pending| pending.answers) {
            let _ = answer.send(result.clone().map_err(AskError::Failed));
        }
    }

    /// Sends a command and waits for its answer, across sessions, until the host is given up.
    pub async fn ask(&self, host: &HostName, command: AgentCommand) -> Reply {
        let (answer, reply) = oneshot::channel();
        {
            let mut slots = self.slots();
            let slot = slots.entry(host.clone()).or_insert_with(|| self.slot());
            if slot.given_up() {
                return Err(AskError::HostDown(host.clone()));
            }
            match slot.pending.get_mut(&command.operation) {
                Some(pending) => pending.answers.push(answer),
                None => {
                    slot.send(&command);
                    let pending = Pending {
                        command: command.clone(),
                        answers: vec![answer],
                    };
                    slot.pending.insert(command.operation, pending);
                }
            }
        }
        reply
            .await
            .unwrap_or_else(|_| Err(AskError::HostDown(host.clone())))
    }

    pub fn is_up(&self, host: &HostName) -> bool {
        self.slots().get(host).is_some_and(Slot::up)
    }

    /// Waits until the host is in contact.
    pub async fn wait_up(&self, host: &HostName) {
        let mut changed = self.changed.subscribe();
        while !self.is_up(host) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// After an election, gives these hosts the moment they need to find the new leader.
    pub async fn wait_elected(&self, hosts: &[HostName]) {
        for host in hosts {
            let left = (self.began + ELECTED).saturating_duration_since(Instant::now());
            // Not up by then: it is down, and whoever asks is told.
            let _ = tokio::time::timeout(left, self.wait_up(host)).await;
        }
    }

    /// What each host said last, and whether it is up.
    pub fn reports(&self) -> BTreeMap<HostName, (bool, AgentReport)> {
        let slots = self.slots();
        let said = slots.iter().filter_map(|(name, slot)| {
            let report = slot.report.clone()?;
            Some((name.clone(), (slot.up(), report)))
        });
        said.collect()
    }

    /// Why memory can't be sent ahead of a freeze from this host, as it said. None: it can.
    pub fn precopy_problem(&self, host: &HostName) -> Option<String> {
        let slots = self.slots();
        let report = slots.get(host)?.report.as_ref()?;
        report.facts.precopy_problem.clone()
    }

    pub fn live(&self) -> Vec<HostName> {
        let slots = self.slots();
        let live = slots.iter().filter(|(_, slot)| slot.up());
        live.map(|(name, _)| name.clone()).collect()
    }

    /// Gives up hosts that were silent too long. To be called a few times a second.
    pub fn sweep(&self) {
        let mut lost = Vec::new();
        let mut dropped = false;
        for (name, slot) in self.slots().iter_mut() {
            if slot.link.is_some() && !slot.heard_lately() {
                tracing::warn!(host = %name, "agent is silent, its session is over");
                slot.link = None;
                dropped = true;
            }
            if slot.given_up() {
                let pending = std::mem::take(&mut slot.pending);
                lost.extend(pending.into_values().map(|pending| (name.clone(), pending)));
            }
        }
        for (host, pending) in lost {
            for answer in pending.answers {
                let _ = answer.send(Err(AskError::HostDown(host.clone())));
            }
        }
        if dropped {
            self.notify();
        }
    }

    /// Ends all sessions: their agents look for the new leader.
    pub fn clear(&self) {
        self.slots().clear();
    }
}
