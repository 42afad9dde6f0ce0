//! The agents in contact, as `controller`'s leader keeps them: a command outlives its session,
//! and a host that was silent for too long is down.

use std::collections::{BTreeMap, BTreeSet};

use godwit_agent::ledger::Answer;
use godwit_types::{AgentCommand, CommandFailure, HostName, OperationId, Outcome};

use crate::{
    context::Context,
    event::{MILLI, Micros, SECOND, ToAgent},
    network::LinkId,
};

/// After an election agents need a moment to find the new leader.
const PATIENCE: Micros = 6 * SECOND;
pub const SESSION_TIMEOUT: Micros = 2500 * MILLI;

/// Why a host did not do what it was asked.
#[derive(Debug, Clone)]
pub enum AskError {
    Failed(CommandFailure),
    HostDown,
}

pub type Reply = Result<Outcome, AskError>;

#[derive(Debug)]
struct Slot {
    link: Option<LinkId>,
    heard: Option<Micros>,
    /// Until then a silent host is not given up.
    patience: Micros,
    pending: BTreeMap<OperationId, AgentCommand>,
}

impl Slot {
    fn heard_lately(&self, local: Micros) -> bool {
        self.heard
            .is_some_and(|at| local.saturating_sub(at) < SESSION_TIMEOUT)
    }

    fn up(&self, local: Micros) -> bool {
        self.link.is_some() && self.heard_lately(local)
    }

    fn given_up(&self, local: Micros) -> bool {
        !self.heard_lately(local) && local > self.patience
    }

    fn send(&self, command: &AgentCommand, context: &mut Context) {
        if let Some(link) = self.link {
            context.tell_agent(link, ToAgent::Command(Box::new(command.clone())));
        }
    }
}

/// All hosts as this leader sees them. Every time is the member's own.
#[derive(Debug)]
pub struct Sessions {
    began: Micros,
    slots: BTreeMap<HostName, Slot>,
    /// Answers that no job has taken yet.
    pub replies: Vec<(HostName, OperationId, Reply)>,
}

impl Sessions {
    pub fn new(began: Micros) -> Self {
        Self {
            began,
            slots: BTreeMap::new(),
            replies: Vec::new(),
        }
    }

    fn slot(&mut self, host: &HostName) -> &mut Slot {
        let patience = self.began + PATIENCE;
        self.slots.entry(host.clone()).or_insert_with(|| Slot {
            link: None,
            heard: None,
            patience,
            pending: BTreeMap::new(),
        })
    }

    /// A session begins. What nobody waits for any more is not done late.
    pub fn attach(
        &mut self,
        host: &HostName,
        link: LinkId,
        awaited: &BTreeSet<OperationId>,
        local: Micros,
        context: &mut Context,
    ) {
        let slot = self.slot(host);
        if let Some(old) = slot.link.replace(link)
            && old != link
        {
            context.net.close_by_member(old);
        }
        slot.heard = Some(local);
        slot.pending
            .retain(|operation, _| awaited.contains(operation));
        for command in slot.pending.values() {
            slot.send(command, context);
        }
    }

    /// False: the session is not the host's any more.
    pub fn heard(&mut self, host: &HostName, link: LinkId, local: Micros) -> bool {
        let Some(slot) = self.slots.get_mut(host) else {
            return false;
        };
        if slot.link != Some(link) {
            return false;
        }
        slot.heard = Some(local);
        true
    }

    /// An agent's answer; one that comes by an old session is as good.
    pub fn complete(&mut self, host: &HostName, operation: OperationId, answer: Answer) {
        let pending = self
            .slots
            .get_mut(host)
            .and_then(|slot| slot.pending.remove(&operation));
        if pending.is_some() {
            let reply = answer.map_err(AskError::Failed);
            self.replies.push((host.clone(), operation, reply));
        }
    }

    /// Sends a command. False: the host is down.
    pub fn ask(
        &mut self,
        host: &HostName,
        command: &AgentCommand,
        local: Micros,
        context: &mut Context,
    ) -> bool {
        let slot = self.slot(host);
        if slot.given_up(local) {
            return false;
        }
        if !slot.pending.contains_key(&command.operation) {
            slot.send(command, context);
            let operation = command.operation.clone();
            slot.pending.insert(operation, command.clone());
        }
        true
    }

    pub fn is_up(&self, host: &HostName, local: Micros) -> bool {
        self.slots.get(host).is_some_and(|slot| slot.up(local))
    }

    /// Gives up hosts that were silent too long.
    pub fn sweep(&mut self, local: Micros, context: &mut Context) {
        for (host, slot) in &mut self.slots {
            if let Some(link) = slot.link
                && (!slot.heard_lately(local)
                    || context.net.is_over(link, false, context.now, 4 * SECOND))
            {
                context.net.close_by_member(link);
                slot.link = None;
            }
            if slot.given_up(local) {
                for (operation, _) in std::mem::take(&mut slot.pending) {
                    let reply = Err(AskError::HostDown);
                    self.replies.push((host.clone(), operation, reply));
                }
            }
        }
    }
}
