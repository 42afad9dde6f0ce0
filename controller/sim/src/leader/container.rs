//! Containers on their hosts: run, stop, remove, until the host has answered.

use godwit_core::{
    Act, Command, Container, Desired, Job, State, clearing, container_operation, nothing_left,
    operation,
};
use godwit_types::{
    AgentCommand, ContainerId, Exit, FailureKind, HostName, InstanceState, OperationId, Outcome,
    Status, Verb,
};

use super::{
    Hands,
    proposal::{ProposeError, Waiter},
    sessions::{AskError, Reply},
};
use crate::{
    context::Context,
    event::{MILLI, Micros, SECOND},
};

const BACKOFF: Micros = 250 * MILLI;
const BACKOFF_MAX: Micros = 5 * SECOND;

#[derive(Debug)]
enum Waits {
    ToAsk,
    Answer(HostName, OperationId),
    HostUp(HostName),
    Until(Micros),
    /// The state has it, or not: either way this is over.
    Written(Result<(), FailureKind>),
    Over,
}

/// A job about one container.
#[derive(Debug)]
pub struct Chore {
    job: Job,
    waits: Waits,
    reply: Option<Reply>,
    written: bool,
    attempt: u32,
    backoff: Micros,
    /// Of a stop: every leader asks by its own.
    operation: OperationId,
}

impl Chore {
    pub fn new(job: Job, operation: OperationId) -> Self {
        Self {
            job,
            waits: Waits::ToAsk,
            reply: None,
            written: false,
            attempt: 0,
            backoff: BACKOFF,
            operation,
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.waits, Waits::Over)
    }

    pub fn awaits(&self) -> Option<(&HostName, &OperationId)> {
        match &self.waits {
            Waits::Answer(host, operation) => Some((host, operation)),
            _ => None,
        }
    }

    pub fn hear(&mut self, host: &HostName, operation: &OperationId, reply: &Reply) {
        if self.awaits() == Some((host, operation)) {
            self.reply = Some(reply.clone());
        }
    }

    pub fn proposed(&mut self, _: Result<(), ProposeError>) {
        self.written = true;
    }

    /// Whether anything changed.
    pub fn step(&mut self, hands: &mut Hands, state: &State, context: &mut Context) -> bool {
        match std::mem::replace(&mut self.waits, Waits::Over) {
            Waits::ToAsk => {
                let Some(command) = self.command(state) else {
                    hands.settle(&self.job, Ok(()));
                    return true;
                };
                let host = self.host(state).expect("the command is of a container");
                self.reply = None;
                self.waits = if hands.sessions.ask(&host, &command, hands.local, context) {
                    Waits::Answer(host, command.operation)
                } else {
                    self.down(hands, host)
                };
            }
            Waits::Answer(host, operation) => match self.reply.take() {
                None => {
                    self.waits = Waits::Answer(host, operation);
                    return false;
                }
                Some(reply) => self.waits = self.answered(hands, state, host, reply),
            },
            Waits::HostUp(host) => {
                if !hands.sessions.is_up(&host, hands.local) {
                    self.waits = Waits::HostUp(host);
                    return false;
                }
                self.waits = Waits::ToAsk;
            }
            Waits::Until(until) => {
                if hands.local < until {
                    self.waits = Waits::Until(until);
                    return false;
                }
                self.waits = Waits::ToAsk;
            }
            Waits::Written(result) => {
                if !self.written {
                    self.waits = Waits::Written(result);
                    return false;
                }
                hands.settle(&self.job, result);
            }
            Waits::Over => return false,
        }
        true
    }

    fn id(&self) -> Option<&ContainerId> {
        match &self.job {
            Job::Run(id) | Job::Stop(id) | Job::Remove(id) => Some(id),
            // Its clients make no volumes.
            Job::Migrate(_) | Job::Clear(_) | Job::RemoveVolume(_) => None,
        }
    }

    fn host(&self, state: &State) -> Option<HostName> {
        match &self.job {
            Job::Clear(id) => Some(state.migrations.get(id)?.to.clone()),
            _ => Some(state.containers.get(self.id()?)?.host.clone()),
        }
    }

    /// What is still to be asked; None: nothing.
    fn command(&self, state: &State) -> Option<AgentCommand> {
        if let Job::Clear(migration) = &self.job {
            let mut ask = clearing(state, state.migrations.get(migration)?)?;
            ask.command.operation = operation(migration, ask.act, self.attempt);
            return Some(ask.command);
        }
        let container = state.containers.get(self.id()?)?;
        let (id, generation) = (container.id.clone(), container.generation);
        let verb = match (&self.job, &container.status, container.desired) {
            (Job::Run(_), Status::Creating, _) => Verb::Run {
                container: id,
                generation,
                spec: Box::new(container.spec.clone()),
            },
            (Job::Stop(_), Status::Running, Desired::Stopped { grace_ms }) => Verb::Stop {
                container: id,
                generation,
                grace_ms,
            },
            (Job::Remove(_), Status::Removing, _) => Verb::Remove {
                container: id,
                generation,
                force: true,
            },
            _ => return None,
        };
        let operation = match &self.job {
            Job::Stop(_) => self.operation.clone(),
            _ => container_operation(&container.id, &verb, self.attempt),
        };
        Some(AgentCommand { operation, verb })
    }

    fn down(&self, hands: &mut Hands, host: HostName) -> Waits {
        hands.settle(&self.job, Err(FailureKind::Peer));
        Waits::HostUp(host)
    }

    fn answered(
        &mut self,
        hands: &mut Hands,
        state: &State,
        host: HostName,
        reply: Reply,
    ) -> Waits {
        let Some(id) = self.id().cloned() else {
            return self.cleared(hands, host, reply);
        };
        let container = state.containers.get(&id);
        match (&self.job, reply) {
            (_, Err(AskError::HostDown)) => self.down(hands, host),
            (Job::Run(_), Ok(Outcome::Running { pid })) => {
                self.report(hands, container, InstanceState::Running { pid })
            }
            (Job::Stop(_), Ok(outcome)) => {
                let exit = match outcome {
                    Outcome::Stopped { exit } => exit,
                    _ => Exit {
                        code: 137,
                        at_ms: hands.local / 1000,
                    },
                };
                self.report(hands, container, InstanceState::Exited { exit })
            }
            (Job::Remove(_), Err(AskError::Failed(failure)))
                if failure.kind != FailureKind::NotFound =>
            {
                hands.settle(&self.job, Err(failure.kind));
                let until = hands.local + self.backoff;
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                self.attempt += 1;
                Waits::Until(until)
            }
            (Job::Remove(_), _) => self.write(hands, Command::Removed { container: id }, Ok(())),
            (Job::Run(_), Err(AskError::Failed(failure))) => {
                // The host has undone it, so that nothing is left to remove there.
                let command = Command::Removed { container: id };
                self.write(hands, command, Err(failure.kind))
            }
            (Job::Stop(_), Err(AskError::Failed(failure))) => {
                let command = Command::CancelStop { container: id };
                self.write(hands, command, Err(failure.kind))
            }
            (Job::Run(_) | Job::Migrate(_) | Job::Clear(_) | Job::RemoveVolume(_), _) => {
                hands.settle(&self.job, Ok(()));
                Waits::Over
            }
        }
    }

    /// What a recovered migration left is gone, or is asked for again.
    fn cleared(&mut self, hands: &mut Hands, host: HostName, reply: Reply) -> Waits {
        let Job::Clear(migration) = self.job.clone() else {
            hands.settle(&self.job, Ok(()));
            return Waits::Over;
        };
        match reply {
            Err(AskError::HostDown) => self.down(hands, host),
            Err(AskError::Failed(failure)) if !nothing_left(Act::Discard, failure.kind) => {
                let until = hands.local + self.backoff;
                self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
                self.attempt += 1;
                Waits::Until(until)
            }
            _ => self.write(hands, Command::Cleared { migration }, Ok(())),
        }
    }

    fn report(
        &mut self,
        hands: &mut Hands,
        container: Option<&Container>,
        state: InstanceState,
    ) -> Waits {
        let Some(container) = container else {
            hands.settle(&self.job, Ok(()));
            return Waits::Over;
        };
        let command = Command::ReportInstance {
            host: container.host.clone(),
            container: container.id.clone(),
            generation: container.generation,
            state: Some(state),
        };
        self.write(hands, command, Ok(()))
    }

    fn write(
        &mut self,
        hands: &mut Hands,
        command: Command,
        then: Result<(), FailureKind>,
    ) -> Waits {
        self.written = false;
        hands.propose(vec![command], Some(Waiter::Job(self.job.clone())));
        Waits::Written(then)
    }
}
