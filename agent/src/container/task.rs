//! The task that owns one container on this host.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use godwit_proto::failure::chain;
use godwit_runtime::RuntimeError;
use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, FailureKind, InstanceState, OperationId, Verb,
};
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};

use super::{
    QUEUE, TakenUp,
    admission::{self, Admission, Meanwhile},
    busy,
    effect::{self, After},
    restart,
};
use crate::{
    commands, failures,
    host::Host,
    ledger::{Answer, LedgerError, Record, Role, now_ms},
};

/// How often a shim is asked before its instance counts as lost, and the time between.
const ASKS: u32 = 5;
const ASK_PAUSE: Duration = Duration::from_millis(200);
/// When a record that could wait is written.
const LATER: Duration = Duration::from_millis(500);

/// Starts it. `found`: what an agent that starts knows already; None: it is read first.
pub fn spawn(
    host: Arc<Host>,
    container: ContainerId,
    queue: mpsc::Receiver<AgentCommand>,
    found: Option<(TakenUp, Option<InstanceState>)>,
) {
    tokio::spawn(async move {
        let unstored = found.as_ref().is_some_and(|(taken, _)| taken.unstored);
        let (record, known) = match found {
            Some((taken, known)) => (Ok(taken.record), known),
            None => {
                let record = load(&host, &container).await;
                // Without a record it is not ours, whatever is there.
                let known = match &record {
                    Ok(record) if record.generation().is_some() => ask(&host, &container).await,
                    _ => None,
                };
                (record, known)
            }
        };
        match record {
            Ok(record) => {
                let backlog = VecDeque::new();
                let unanswered = Vec::new();
                let mut task = ContainerTask {
                    host,
                    container,
                    queue,
                    record,
                    known,
                    backlog,
                    unanswered,
                    unstored,
                    again: None,
                    pause: None,
                };
                task.plan();
                task.publish();
                task.live().await;
            }
            Err(error) => refuse_all(&host, &container, queue, &error).await,
        }
    });
}

struct ContainerTask {
    host: Arc<Host>,
    container: ContainerId,
    queue: mpsc::Receiver<AgentCommand>,
    record: Record,
    /// What the instance was last seen doing; None: there is none.
    known: Option<InstanceState>,
    /// Arrived while another command was being done.
    backlog: VecDeque<AgentCommand>,
    /// Answers of commands that were dropped; they wait for the record that holds them.
    unanswered: Vec<(OperationId, Answer)>,
    /// The record on the disk is older than this one.
    unstored: bool,
    /// When it is started again, as its policy has it.
    again: Option<Instant>,
    /// How long was waited before the run that has ended.
    pause: Option<Duration>,
}

impl ContainerTask {
    async fn live(&mut self) {
        loop {
            let command = match self.backlog.pop_front() {
                Some(command) => command,
                None => {
                    if self.record.generation().is_none()
                        && !self.unstored
                        && self.host.containers.retire(&self.container, &self.queue)
                    {
                        return;
                    }
                    tokio::select! {
                        biased;
                        command = self.queue.recv() => match command {
                            Some(command) => command,
                            None => return,
                        },
                        state = watch(&self.host, &self.container, self.known.as_ref()) => {
                            self.observe(state);
                            continue;
                        }
                        () = until(self.again) => {
                            self.start_again().await;
                            continue;
                        }
                        () = tokio::time::sleep(LATER), if self.unstored => {
                            self.catch_up().await;
                            continue;
                        }
                    }
                }
            };
            self.handle(command).await;
            self.plan();
        }
    }

    async fn handle(&mut self, command: AgentCommand) {
        match admission::admit(&self.record, self.known.as_ref(), &command) {
            Admission::Again(answer) => self.host.outbox.send(command.operation, answer).await,
            Admission::Refuse(failure) => {
                let failure = self.failed(&command, failure);
                self.host.outbox.send(command.operation, Err(failure)).await;
            }
            Admission::Already(outcome) => {
                self.settle(&command, Ok(outcome), After::Same).await;
            }
            Admission::Perform => self.perform(command).await,
        }
    }

    async fn perform(&mut self, command: AgentCommand) {
        // That of a repeat is on the disk already.
        let intent = effect::begin(&self.record, &command);
        if let Some(intent) = intent.filter(|intent| self.unstored || *intent != self.record) {
            if let Err(error) = store(&self.host, &intent).await {
                let answer = Err(self.failed(&command, failures::internal(&error)));
                // A copy of it that is still on its way must not be done: nobody wants it any more.
                self.record.keep(&command, &answer);
                self.unstored = true;
                self.host.outbox.send(command.operation, answer).await;
                return;
            }
            self.record = intent;
            self.unstored = false;
        }
        let started = Instant::now();
        match self.execute(&command).await {
            Ok(answer) => {
                let answer = match answer {
                    Ok(outcome) => {
                        info!(
                            container = self.container.short(),
                            migration = admission::migration(&command.verb).map(tracing::field::display),
                            operation = %command.operation,
                            micros = started.elapsed().as_micros() as u64,
                            "{} done",
                            command.verb.name()
                        );
                        Ok(outcome)
                    }
                    Err(failure) => Err(self.failed(&command, failure)),
                };
                let concluded = effect::conclude(&self.record, &command, &answer, now_ms());
                let after = effect::state(&concluded, &command.verb, &answer);
                self.settle(&command, answer, after).await;
            }
            Err(undo) => {
                let by = format!("interrupted by {}", undo.verb.name());
                let failure = CommandFailure::new(FailureKind::WrongState, by);
                let answer = Err(self.failed(&command, failure));
                self.record = effect::conclude(&self.record, &command, &answer, now_ms());
                self.unanswered.push((command.operation, answer));
                self.backlog.push_front(undo);
            }
        }
    }

    /// Does the command, or drops it and answers the undo that came meanwhile.
    async fn execute(&mut self, command: &AgentCommand) -> Result<Answer, AgentCommand> {
        let (record, known) = (&self.record, self.known.as_ref());
        // It may have come while both waited for something else.
        let undo = self.backlog.iter().position(|next| {
            admission::meanwhile(record, known, command, next) == Meanwhile::Interrupt
        });
        if let Some(undo) = undo.and_then(|at| self.backlog.remove(at)) {
            return Err(undo);
        }
        let host = self.host.clone();
        let mut work = pin!(commands::execute(&host, &command.verb));
        let long = matches!(command.verb, Verb::PreCopy { .. } | Verb::Sample { .. });
        loop {
            tokio::select! {
                biased;
                answer = &mut work => return Ok(answer),
                Some(next) = self.queue.recv() => {
                    let (record, known) = (&self.record, self.known.as_ref());
                    match admission::meanwhile(record, known, command, &next) {
                        Meanwhile::Join => {}
                        Meanwhile::Interrupt => return Err(next),
                        Meanwhile::Wait if self.backlog.len() < QUEUE => {
                            self.backlog.push_back(next);
                        }
                        Meanwhile::Wait => {
                            let failure = failures::on_host(&self.host.name, busy());
                            self.host.outbox.send(next.operation, Err(failure)).await;
                        }
                    }
                }
                // It runs all the while, and may end.
                state = watch(&self.host, &self.container, self.known.as_ref()), if long => {
                    self.observe(state);
                }
            }
        }
    }

    /// Remembers, publishes, answers: in this order, so that the leader never reads of an
    /// instance that a crash could make us forget, nor hears an answer before the report that
    /// agrees with it.
    async fn settle(&mut self, command: &AgentCommand, answer: Answer, after: After) {
        let concluded = effect::conclude(&self.record, command, &answer, now_ms());
        let answer = if concluded == self.record && self.unanswered.is_empty() {
            answer
        } else if self.unanswered.is_empty() && effect::may_wait(&command.verb, &answer) {
            self.record = concluded;
            self.unstored = true;
            answer
        } else {
            self.remember(concluded, command, answer).await
        };
        match after {
            After::Same => {}
            After::Is(state) => self.known = Some(state),
            After::Gone => self.known = None,
            After::Ask => self.known = ask(&self.host, &self.container).await,
        }
        self.look_at_end();
        self.look_at_start(&command.verb);
        self.plan();
        self.publish();
        for (operation, answer) in self.unanswered.drain(..) {
            self.host.outbox.send(operation, answer).await;
        }
        self.host
            .outbox
            .send(command.operation.clone(), answer)
            .await;
    }

    /// Stores the record. When the disk refuses, what was done stays done, but no success is
    /// answered, nor remembered as answered, unless its intent says enough.
    async fn remember(
        &mut self,
        concluded: Record,
        command: &AgentCommand,
        answer: Answer,
    ) -> Answer {
        let stored = store(&self.host, &concluded).await;
        if let Err(error) = &stored
            && effect::must_be_stored(&answer)
        {
            return Err(self.failed(command, failures::internal(error)));
        }
        self.record = concluded;
        self.unstored = stored.is_err();
        match stored {
            Ok(()) => answer,
            Err(error) if effect::is_intended(&command.verb, &answer) => {
                warn!(
                    container = self.container.short(),
                    error = chain(&error),
                    "not stored yet"
                );
                answer
            }
            Err(error) => {
                self.record
                    .finished
                    .retain(|done| done.operation != command.operation);
                let failure = self.failed(command, failures::internal(&error));
                answer.and(Err(failure))
            }
        }
    }

    /// Writes what could wait.
    async fn catch_up(&mut self) {
        match store(&self.host, &self.record).await {
            Ok(()) => self.unstored = false,
            Err(error) => {
                warn!(
                    container = self.container.short(),
                    error = chain(&error),
                    "not stored yet"
                );
            }
        }
    }

    fn observe(&mut self, state: Option<InstanceState>) {
        match &state {
            Some(state) => info!(
                container = self.container.short(),
                ?state,
                "instance changed"
            ),
            None => warn!(container = self.container.short(), "instance is gone"),
        }
        self.known = state;
        self.look_at_end();
        self.plan();
        self.publish();
    }

    /// Keeps what its host can't do for a run that began here.
    fn look_at_start(&mut self, verb: &Verb) {
        if matches!(
            verb,
            Verb::Run { .. } | Verb::Start { .. } | Verb::Resume { .. }
        ) && self.known.is_some()
        {
            let warnings = self.host.runtime.warnings(&self.container);
            if warnings != self.record.life.details.warnings {
                self.record.life.details.warnings = warnings;
                self.unstored = true;
            }
        }
    }

    /// Keeps how a run ended.
    fn look_at_end(&mut self) {
        let Some(InstanceState::Exited { exit }) = self.known else {
            return;
        };
        let details = &mut self.record.life.details;
        if details.last_exit != Some(exit) {
            details.last_exit = Some(exit);
            details.oom_killed = self.host.runtime.oom_killed(&self.container);
            self.unstored = true;
        }
    }

    /// Decides when it is started again, if it is to be.
    fn plan(&mut self) {
        match restart::due(&self.record, self.known.as_ref()) {
            None => self.again = None,
            Some(_) if self.again.is_some() => {}
            Some(exit) => {
                let ran = exit
                    .at_ms
                    .saturating_sub(self.record.life.details.started_ms);
                let pause = restart::pause(self.pause, Duration::from_millis(ran));
                self.pause = Some(pause);
                self.again = Some(Instant::now() + pause);
            }
        }
    }

    async fn start_again(&mut self) {
        self.again = None;
        let Role::Owner { spec, .. } = &self.record.role else {
            return;
        };
        let spec = spec.clone();
        let details = &mut self.record.life.details;
        details.restarts = details.restarts.saturating_add(1);
        // Before the start: an agent that is killed in between must not try once more than allowed.
        self.unstored = true;
        self.catch_up().await;
        let started = self.host.runtime.start(&self.container, &spec).await;
        self.unstored = true;
        let details = &mut self.record.life.details;
        let (container, restarts) = (self.container.short(), details.restarts);
        match started {
            Ok(pid) => {
                info!(container, pid, restarts, "started again by its policy");
                details.started_ms = now_ms();
                details.oom_killed = false;
            }
            Err(error) => {
                warn!(
                    container,
                    restarts,
                    error = chain(&error),
                    "not started again"
                );
            }
        }
        self.known = ask(&self.host, &self.container).await;
        self.look_at_end();
        self.plan();
        self.publish();
    }

    fn publish(&self) {
        let state = match (&self.known, self.again) {
            (Some(InstanceState::Exited { exit }), Some(_)) => {
                Some(InstanceState::Restarting { exit: *exit })
            }
            (known, _) => known.clone(),
        };
        let line = self.record.generation().zip(state);
        let details = self.record.life.details.clone();
        self.host.board.publish_with(&self.container, line, details);
    }

    /// Names the host in the failure, and logs it once.
    fn failed(&self, command: &AgentCommand, failure: CommandFailure) -> CommandFailure {
        let failure = failures::on_host(&self.host.name, failure);
        warn!(
            container = self.container.short(),
            migration = admission::migration(&command.verb).map(tracing::field::display),
            operation = %command.operation,
            kind = ?failure.kind,
            error = %failure,
            "{} failed",
            command.verb.name()
        );
        failure
    }
}

/// What the instance is doing, None when it is not here. One that can't be asked is reported
/// as lost: not to list it would say that it is gone.
pub async fn ask(host: &Host, container: &ContainerId) -> Option<InstanceState> {
    patiently(|| host.runtime.state(container)).await
}

/// None: never.
async fn until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// Answers when the instance does something else than `known`.
async fn watch(
    host: &Host,
    container: &ContainerId,
    known: Option<&InstanceState>,
) -> Option<InstanceState> {
    let Some(known) = known else {
        return std::future::pending().await;
    };
    loop {
        let now = patiently(|| host.runtime.changed(container, known)).await;
        if now.as_ref() != Some(known) {
            return now;
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// A shim that does not answer once may be busy; the leader gives up a container that is lost.
async fn patiently<F>(ask: impl Fn() -> F) -> Option<InstanceState>
where
    F: Future<Output = Result<InstanceState, RuntimeError>>,
{
    for _ in 1..ASKS {
        match ask().await {
            Ok(state) => return Some(state),
            Err(RuntimeError::NotFound(_)) => return None,
            Err(_) => tokio::time::sleep(ASK_PAUSE).await,
        }
    }
    match ask().await {
        Ok(state) => Some(state),
        Err(RuntimeError::NotFound(_)) => None,
        Err(error) => Some(InstanceState::Lost {
            reason: chain(&error),
        }),
    }
}

async fn load(host: &Host, container: &ContainerId) -> Result<Record, LedgerError> {
    let (ledger, id) = (host.ledger.clone(), container.clone());
    let record = on_disk(move || ledger.load(&id)).await?;
    Ok(record.unwrap_or_else(|| Record::unknown(container.clone(), now_ms())))
}

async fn store(host: &Host, record: &Record) -> Result<(), LedgerError> {
    let (ledger, record) = (host.ledger.clone(), record.clone());
    on_disk(move || ledger.store(&record)).await
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("the ledger does not panic")
}

/// The life of a task whose record can't be read.
async fn refuse_all(
    host: &Host,
    container: &ContainerId,
    mut queue: mpsc::Receiver<AgentCommand>,
    error: &LedgerError,
) {
    let failure = failures::on_host(&host.name, failures::internal(error));
    warn!(container = container.short(), error = %failure, "container refused");
    while !host.containers.retire(container, &queue) {
        if let Some(command) = queue.recv().await {
            host.outbox
                .send(command.operation, Err(failure.clone()))
                .await;
        }
    }
}
