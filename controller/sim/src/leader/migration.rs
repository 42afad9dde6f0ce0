//! One migration from where it is to its end: the core's course, asked for step by step.

use godwit_core::{Act, Ask, Course, Migration, Record, State, Step, Written};
use godwit_types::{FailureKind, HostName, OperationId, Outcome, Phase};

use super::{
    Hands,
    ask::Insist,
    proposal::{ProposeError, Waiter},
    sessions::{AskError, Reply},
};
use crate::{
    bug::Bug,
    context::Context,
    event::{Micros, SECOND},
};
use godwit_core::Job;

/// An act that takes longer has failed.
const PATIENCE: Micros = 60 * SECOND;

#[derive(Debug)]
enum Doing {
    Decide,
    Attempt {
        ask: Ask,
        reaches: Option<Phase>,
        record: Record,
        deadline: Micros,
        limit: Micros,
    },
    Forward(Insist, Option<Phase>),
    Undo(Vec<Insist>),
    Write(What),
    Over,
}

#[derive(Debug)]
enum What {
    Phase(Phase, Record),
    Commit,
    Abort,
}

/// See the module.
#[derive(Debug)]
pub struct Drive {
    course: Course,
    doing: Doing,
    reply: Option<Reply>,
    written: Option<Result<(), ProposeError>>,
}

impl Drive {
    pub fn new(migration: Migration) -> Self {
        Self {
            course: Course::new(migration),
            doing: Doing::Decide,
            reply: None,
            written: None,
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.doing, Doing::Over)
    }

    pub fn awaits(&self) -> Vec<(&HostName, &OperationId)> {
        match &self.doing {
            Doing::Attempt { ask, .. } => vec![(&ask.host, &ask.command.operation)],
            Doing::Forward(insist, _) => insist.awaits().into_iter().collect(),
            Doing::Undo(all) => all.iter().filter_map(Insist::awaits).collect(),
            _ => Vec::new(),
        }
    }

    pub fn hear(&mut self, host: &HostName, operation: &OperationId, reply: &Reply) {
        match &mut self.doing {
            Doing::Attempt { ask, .. }
                if ask.host == *host && ask.command.operation == *operation =>
            {
                self.reply = Some(reply.clone());
            }
            Doing::Forward(insist, _) => insist.hear(host, operation, reply),
            Doing::Undo(all) => {
                for insist in all {
                    insist.hear(host, operation, reply);
                }
            }
            _ => {}
        }
    }

    pub fn proposed(&mut self, result: Result<(), ProposeError>) {
        self.written = Some(result);
    }

    /// Whether anything changed.
    pub fn step(&mut self, hands: &mut Hands, state: &State, context: &mut Context) -> bool {
        match std::mem::replace(&mut self.doing, Doing::Over) {
            Doing::Decide => {
                self.course.look(state);
                self.decide(hands, state, context);
                true
            }
            Doing::Attempt {
                ask,
                reaches,
                record,
                deadline,
                limit,
            } => self.attempt(hands, state, (ask, reaches, record, deadline, limit)),
            Doing::Forward(mut insist, reaches) => {
                let moved = insist.step(hands, context);
                self.doing = if insist.is_over() {
                    let mut record = Record::default();
                    if insist.act() == Act::Resume
                        && let Some(Outcome::Resumed { pid, .. }) = insist.outcome
                    {
                        record.pid = (pid != 0).then_some(pid);
                    }
                    let phase = reaches.unwrap_or(self.course.migration().phase);
                    self.write(hands, What::Phase(phase, record))
                } else {
                    Doing::Forward(insist, reaches)
                };
                moved
            }
            Doing::Undo(mut all) => {
                let mut moved = false;
                for insist in &mut all {
                    moved |= insist.step(hands, context);
                }
                self.doing = if all.iter().all(Insist::is_over) {
                    moved = true;
                    self.write(hands, What::Phase(Phase::Aborted, Record::default()))
                } else {
                    Doing::Undo(all)
                };
                moved
            }
            Doing::Write(what) => match self.written.take() {
                None => {
                    self.doing = Doing::Write(what);
                    false
                }
                Some(result) => {
                    self.doing = self.after(hands, state, what, result);
                    true
                }
            },
            Doing::Over => false,
        }
    }

    fn decide(&mut self, hands: &mut Hands, state: &State, context: &mut Context) {
        let migration = self.course.migration().clone();
        self.doing = match self.course.step(state) {
            Step::Ask { ask, reaches } if migration.phase.is_committed() => {
                Doing::Forward(Insist::new(&migration.id, ask), reaches)
            }
            Step::Ask { ask, reaches } => {
                let mut record = Record::default();
                if ask.act == Act::Freeze {
                    record.freeze_started_ms = Some(hands.local / 1000);
                }
                self.reply = None;
                if ask.act == Act::Stage && context.bug == Some(Bug::CommitBeforeStaged) {
                    self.reply = Some(Ok(Outcome::Staged { steps: Vec::new() }));
                } else if !hands
                    .sessions
                    .ask(&ask.host, &ask.command, hands.local, context)
                {
                    self.reply = Some(Err(AskError::HostDown));
                }
                let limit = match migration.options.timeout_ms {
                    Some(ms) if ask.act == Act::PreCopy => (migration.started_ms + ms) * 1000,
                    _ => Micros::MAX,
                };
                Doing::Attempt {
                    ask,
                    reaches,
                    record,
                    deadline: hands.local + PATIENCE,
                    limit,
                }
            }
            Step::Commit => {
                let commands = self.course.commit();
                let waiter = Waiter::Job(Job::Migrate(migration.id));
                self.written = None;
                hands.propose(commands, Some(waiter));
                Doing::Write(What::Commit)
            }
            Step::Undo(asks) => Doing::Undo(
                asks.into_iter()
                    .map(|ask| Insist::new(&migration.id, ask))
                    .collect(),
            ),
            Step::Impossible(_) if migration.phase == Phase::Aborting => {
                self.write(hands, What::Phase(Phase::Aborted, Record::default()))
            }
            Step::Impossible(reason) => self.abort(hands, reason, None),
            Step::Finished => Doing::Over,
        };
    }

    fn attempt(
        &mut self,
        hands: &mut Hands,
        state: &State,
        (ask, reaches, record, deadline, limit): (Ask, Option<Phase>, Record, Micros, Micros),
    ) -> bool {
        let late = hands.local >= deadline.min(limit);
        self.doing = match self.reply.take() {
            Some(Ok(outcome)) => match self.course.answered(ask.act, reaches, outcome, record) {
                Written::Not => Doing::Decide,
                Written::Detached(command) => {
                    hands.propose(vec![command], None);
                    Doing::Decide
                }
                Written::Awaited(phase, record) => self.write(hands, What::Phase(phase, record)),
            },
            Some(Err(AskError::Failed(failure))) => {
                self.abort(hands, &failure.message, Some(failure.kind))
            }
            Some(Err(AskError::HostDown)) => self.abort(hands, "host is down", None),
            None if self.course.look(state) => Doing::Decide,
            None if late => self.abort(hands, "no answer", None),
            None => {
                self.doing = Doing::Attempt {
                    ask,
                    reaches,
                    record,
                    deadline,
                    limit,
                };
                return false;
            }
        };
        true
    }

    fn write(&mut self, hands: &mut Hands, what: What) -> Doing {
        if let What::Phase(phase, record) = &what {
            let command = self.course.advance(*phase, record.clone());
            let waiter = Waiter::Job(Job::Migrate(self.course.migration().id.clone()));
            self.written = None;
            hands.propose(vec![command], Some(waiter));
        }
        Doing::Write(what)
    }

    fn abort(&mut self, hands: &mut Hands, reason: &str, failure: Option<FailureKind>) -> Doing {
        let command = self.course.abort(reason.to_owned(), failure);
        let waiter = Waiter::Job(Job::Migrate(self.course.migration().id.clone()));
        self.written = None;
        hands.propose(vec![command], Some(waiter));
        Doing::Write(What::Abort)
    }

    fn after(
        &mut self,
        hands: &mut Hands,
        state: &State,
        what: What,
        result: Result<(), ProposeError>,
    ) -> Doing {
        match (what, result) {
            (What::Phase(phase, record), Ok(())) => {
                self.course.note(phase, &record);
                Doing::Decide
            }
            (What::Phase(..), Err(ProposeError::Refused(_))) if self.course.look(state) => {
                Doing::Decide
            }
            (What::Commit, Ok(())) => {
                self.course.note(Phase::Committed, &Record::default());
                Doing::Decide
            }
            // A refusal is certain: it is not committed and, aborted, never will be.
            (What::Commit, Err(ProposeError::Refused(refusal))) => {
                self.abort(hands, &refusal.to_string(), None)
            }
            (What::Abort, Ok(())) => {
                self.course.note(Phase::Aborting, &Record::default());
                Doing::Decide
            }
            // Another leader takes it from what is stored, or this one does after a pause.
            (_, Err(_)) => Doing::Over,
        }
    }
}
