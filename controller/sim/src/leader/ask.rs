//! One command that is asked until it is answered for good.

use godwit_core::{Act, Ask, nothing_left, operation};
use godwit_types::{HostName, MigrationId, OperationId, Outcome};

use super::{
    Hands,
    sessions::{AskError, Reply},
};
use crate::{
    context::Context,
    event::{MILLI, Micros, SECOND},
};

const BACKOFF: Micros = 100 * MILLI;
const BACKOFF_MAX: Micros = 5 * SECOND;

#[derive(Debug)]
enum Waits {
    ToAsk,
    Answer,
    HostUp,
    Until(Micros),
    Over,
}

/// As `insist` of `controller`'s leader does it.
#[derive(Debug)]
pub struct Insist {
    migration: MigrationId,
    act: Act,
    host: HostName,
    command: godwit_types::AgentCommand,
    attempt: u32,
    backoff: Micros,
    waits: Waits,
    reply: Option<Reply>,
    pub outcome: Option<Outcome>,
}

impl Insist {
    pub fn new(migration: &MigrationId, ask: Ask) -> Self {
        Self {
            migration: migration.clone(),
            act: ask.act,
            host: ask.host,
            command: ask.command,
            attempt: 0,
            backoff: BACKOFF,
            waits: Waits::ToAsk,
            reply: None,
            outcome: None,
        }
    }

    pub fn act(&self) -> Act {
        self.act
    }

    pub fn is_over(&self) -> bool {
        matches!(self.waits, Waits::Over)
    }

    pub fn awaits(&self) -> Option<(&HostName, &OperationId)> {
        matches!(self.waits, Waits::Answer).then_some((&self.host, &self.command.operation))
    }

    pub fn hear(&mut self, host: &HostName, operation: &OperationId, reply: &Reply) {
        if self.awaits() == Some((host, operation)) {
            self.reply = Some(reply.clone());
        }
    }

    /// Whether anything changed.
    pub fn step(&mut self, hands: &mut Hands, context: &mut Context) -> bool {
        match self.waits {
            Waits::ToAsk => {
                let asked = hands
                    .sessions
                    .ask(&self.host, &self.command, hands.local, context);
                self.waits = if asked { Waits::Answer } else { Waits::HostUp };
            }
            Waits::Answer => match self.reply.take() {
                None => return false,
                Some(Ok(outcome)) => {
                    self.outcome = Some(outcome);
                    self.waits = Waits::Over;
                }
                Some(Err(AskError::HostDown)) => self.waits = Waits::HostUp,
                Some(Err(AskError::Failed(failure))) => {
                    if nothing_left(self.act, failure.kind) {
                        self.waits = Waits::Over;
                    } else {
                        self.waits = Waits::Until(hands.local + self.backoff);
                        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                        self.attempt += 1;
                        self.command.operation = operation(&self.migration, self.act, self.attempt);
                    }
                }
            },
            Waits::HostUp => {
                if !hands.sessions.is_up(&self.host, hands.local) {
                    return false;
                }
                self.waits = Waits::ToAsk;
            }
            Waits::Until(until) => {
                if hands.local < until {
                    return false;
                }
                self.waits = Waits::ToAsk;
            }
            Waits::Over => return false,
        }
        true
    }
}
