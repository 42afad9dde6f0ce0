//! An agent's session with the leader: found, held, lost, found again.

use crate::{
    context::Context,
    event::{FromAgent, MILLI, Micros, SECOND},
    network::LinkId,
};

const HEARTBEAT: Micros = 500 * MILLI;
const ANSWER: Micros = SECOND;
/// How long probes go unanswered before a connection is given up.
pub const PROBES: Micros = 4 * SECOND;

#[derive(Debug)]
enum Stage {
    Pause(Micros),
    Trying(LinkId, Micros),
    Open(LinkId, Micros),
}

/// See the module. Every time is the host's own.
#[derive(Debug)]
pub struct Session {
    stage: Stage,
    next: usize,
    suggested: Option<usize>,
    failures: u64,
    /// Since when there is none.
    silent: Micros,
}

/// What the session wants of the agent.
#[derive(Debug, PartialEq, Eq)]
pub enum Wants {
    Nothing,
    Hello(usize),
    Report,
}

impl Session {
    pub fn new(local: Micros) -> Self {
        Self {
            stage: Stage::Pause(local),
            next: 0,
            suggested: None,
            failures: 0,
            silent: local,
        }
    }

    /// The open session.
    pub fn link(&self) -> Option<LinkId> {
        match self.stage {
            Stage::Open(link, _) => Some(link),
            _ => None,
        }
    }

    /// Whether what comes by this connection is heard.
    pub fn hears(&self, link: LinkId) -> bool {
        matches!(self.stage, Stage::Open(l, _) | Stage::Trying(l, _) if l == link)
    }

    /// How long there has been none.
    pub fn silence(&self, local: Micros) -> Micros {
        match self.stage {
            Stage::Open(..) => 0,
            _ => local.saturating_sub(self.silent),
        }
    }

    fn pause(&mut self, local: Micros, context: &mut Context) {
        if matches!(self.stage, Stage::Open(..)) {
            self.silent = local;
            self.failures = 0;
        }
        let full = match self.failures {
            0 => 50,
            1..30 => (50 << self.failures.min(4)).min(300),
            _ => 2000,
        };
        let pause = context.rng.range(full / 2, full) * MILLI;
        self.stage = Stage::Pause(local + pause);
    }

    pub fn connecting(&mut self, link: LinkId, local: Micros) {
        self.stage = Stage::Trying(link, local + ANSWER);
    }

    /// The member could not be reached, or is not the leader.
    pub fn refused(&mut self, hint: Option<usize>, local: Micros, context: &mut Context) {
        if let Stage::Trying(link, _) = self.stage {
            context.net.close_by_agent(link);
        }
        self.failures += 1;
        self.suggested = hint;
        self.pause(local, context);
    }

    pub fn welcome(&mut self, local: Micros) {
        if let Stage::Trying(link, _) = self.stage {
            self.stage = Stage::Open(link, local + HEARTBEAT);
        }
    }

    pub fn reported(&mut self, local: Micros) {
        if let Stage::Open(link, _) = self.stage {
            self.stage = Stage::Open(link, local + HEARTBEAT);
        }
    }

    pub fn tick(&mut self, members: usize, local: Micros, context: &mut Context) -> Wants {
        match self.stage {
            Stage::Pause(until) if local >= until => {
                let member = self.suggested.take().unwrap_or_else(|| {
                    self.next += 1;
                    self.next % members
                });
                Wants::Hello(member)
            }
            Stage::Pause(_) => Wants::Nothing,
            Stage::Trying(link, until) => {
                if local >= until || context.net.is_over(link, true, context.now, PROBES) {
                    self.refused(None, local, context);
                }
                Wants::Nothing
            }
            Stage::Open(link, beat) => {
                if context.net.is_over(link, true, context.now, PROBES) {
                    context.net.close_by_agent(link);
                    self.pause(local, context);
                    Wants::Nothing
                } else if local >= beat {
                    Wants::Report
                } else {
                    Wants::Nothing
                }
            }
        }
    }

    pub fn send(&self, message: FromAgent, context: &mut Context) {
        if let Some(link) = self.link() {
            context.tell_member(link, message);
        }
    }
}
