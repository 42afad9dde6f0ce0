//! What an agent does with one container: the order of `agent`'s task, with the agent's own
//! admission, effects and record.

use std::collections::VecDeque;

use godwit_agent::{
    container::{
        admission::{self, Admission, Meanwhile},
        effect::{self, After},
    },
    ledger::{Answer, Record},
};
use godwit_types::{AgentCommand, CommandFailure, FailureKind, InstanceState, OperationId, Verb};

use crate::bug::Bug;

/// Commands that may wait.
const QUEUE: usize = 16;

/// What is under way; until it is over nothing else begins.
#[derive(Debug)]
enum Busy {
    /// The record is on its way to the disk, before the command is done.
    Intent(AgentCommand, Box<Record>),
    /// The runtime has it.
    Work(AgentCommand, u64),
    /// The record is on its way to the disk, before the command is answered.
    Settle(AgentCommand, Box<(Answer, Record, After)>),
    /// The record that could wait is on its way.
    Later,
}

/// What the task asks of its agent.
#[derive(Debug)]
pub enum Do {
    Answer(OperationId, Answer),
    /// To be written; the agent says when it is over.
    Store(Box<Record>),
    /// To be done; the agent says under which number.
    Work(AgentCommand),
    /// The work of this number is not wanted any more.
    Drop(u64),
    Publish,
}

/// See the module.
#[derive(Debug)]
pub struct Task {
    pub record: Record,
    /// What the instance was last seen doing; None: there is none.
    pub known: Option<InstanceState>,
    queue: VecDeque<AgentCommand>,
    backlog: VecDeque<AgentCommand>,
    unanswered: Vec<(OperationId, Answer)>,
    /// The record on the disk is older than this one.
    pub unstored: bool,
    busy: Option<Busy>,
    bug: Option<Bug>,
    pub acts: Vec<Do>,
}

impl Task {
    pub fn new(record: Record, known: Option<InstanceState>, bug: Option<Bug>) -> Self {
        Self {
            record,
            known,
            queue: VecDeque::new(),
            backlog: VecDeque::new(),
            unanswered: Vec::new(),
            unstored: false,
            busy: None,
            bug,
            acts: vec![Do::Publish],
        }
    }

    pub fn is_idle(&self) -> bool {
        self.busy.is_none() && self.queue.is_empty() && self.backlog.is_empty()
    }

    /// It watches its instance: between commands, and during one that may take minutes.
    pub fn watches(&self) -> bool {
        match &self.busy {
            None => true,
            Some(Busy::Work(command, _)) => matches!(command.verb, Verb::PreCopy { .. }),
            Some(_) => false,
        }
    }

    pub fn observe(&mut self, state: Option<InstanceState>) {
        self.known = state;
        self.acts.push(Do::Publish);
    }

    /// The record that could wait is written now.
    pub fn catch_up(&mut self) {
        if self.unstored && self.busy.is_none() {
            self.acts.push(Do::Store(Box::new(self.record.clone())));
            self.busy = Some(Busy::Later);
        }
    }

    pub fn submit(&mut self, command: AgentCommand, ask: impl Fn() -> Option<InstanceState>) {
        let waiting = self.queue.len() + self.backlog.len();
        let Some(Busy::Work(current, work)) = &self.busy else {
            if waiting >= QUEUE {
                self.refuse(&command, FailureKind::WrongState, "too many commands wait");
                return;
            }
            self.queue.push_back(command);
            self.go_on(&ask);
            return;
        };
        match admission::meanwhile(&self.record, self.known.as_ref(), current, &command) {
            Meanwhile::Join => {}
            Meanwhile::Interrupt => {
                self.acts.push(Do::Drop(*work));
                if let Some(Busy::Work(current, _)) = self.busy.take() {
                    self.interrupted(current, command);
                }
                self.go_on(&ask);
            }
            Meanwhile::Wait if waiting < QUEUE => self.backlog.push_back(command),
            Meanwhile::Wait => {
                self.refuse(&command, FailureKind::WrongState, "too many commands wait");
            }
        }
    }

    fn refuse(&mut self, command: &AgentCommand, kind: FailureKind, why: &str) {
        let answer = Err(CommandFailure::new(kind, why));
        self.acts
            .push(Do::Answer(command.operation.clone(), answer));
    }

    fn interrupted(&mut self, command: AgentCommand, undo: AgentCommand) {
        let by = format!("interrupted by {}", undo.verb.name());
        let answer = Err(CommandFailure::new(FailureKind::WrongState, by));
        self.record = effect::conclude(&self.record, &command, &answer, 0);
        self.unanswered.push((command.operation, answer));
        self.backlog.push_front(undo);
    }

    /// Begins what waits, one after the other, until something takes its time.
    fn go_on(&mut self, ask: &impl Fn() -> Option<InstanceState>) {
        while self.busy.is_none() {
            let next = self.backlog.pop_front().or_else(|| self.queue.pop_front());
            let Some(command) = next else { return };
            self.handle(command, ask);
        }
    }

    fn handle(&mut self, command: AgentCommand, ask: &impl Fn() -> Option<InstanceState>) {
        let admitted = match self.bug {
            Some(Bug::NoAdmission) => Admission::Perform,
            _ => admission::admit(&self.record, self.known.as_ref(), &command),
        };
        match admitted {
            Admission::Again(answer) => self.acts.push(Do::Answer(command.operation, answer)),
            Admission::Refuse(failure) => {
                self.acts.push(Do::Answer(command.operation, Err(failure)));
            }
            Admission::Already(outcome) => self.settle(command, Ok(outcome), After::Same, ask),
            Admission::Perform => self.perform(command),
        }
    }

    fn perform(&mut self, command: AgentCommand) {
        // That of a repeat is on the disk already.
        let intent = effect::begin(&self.record, &command);
        match intent.filter(|intent| self.unstored || *intent != self.record) {
            Some(intent) => {
                self.acts.push(Do::Store(Box::new(intent.clone())));
                self.busy = Some(Busy::Intent(command, Box::new(intent)));
            }
            None => self.execute(command),
        }
    }

    fn execute(&mut self, command: AgentCommand) {
        // It may have come while both waited for something else.
        let (record, known) = (&self.record, self.known.as_ref());
        let undo = self.backlog.iter().position(|next| {
            admission::meanwhile(record, known, &command, next) == Meanwhile::Interrupt
        });
        if let Some(undo) = undo.and_then(|at| self.backlog.remove(at)) {
            self.interrupted(command, undo);
            return;
        }
        self.acts.push(Do::Work(command.clone()));
        self.busy = Some(Busy::Work(command, 0));
    }

    /// The agent has begun the work.
    pub fn begun(&mut self, number: u64) {
        if let Some(Busy::Work(_, work)) = &mut self.busy {
            *work = number;
        }
    }

    /// What the work of this number is.
    pub fn verb_of(&self, number: u64) -> Option<&Verb> {
        match &self.busy {
            Some(Busy::Work(command, work)) if *work == number => Some(&command.verb),
            _ => None,
        }
    }

    /// How the work ended.
    pub fn finished(
        &mut self,
        number: u64,
        answer: Answer,
        ask: impl Fn() -> Option<InstanceState>,
    ) {
        let command = match self.busy.take() {
            Some(Busy::Work(command, work)) if work == number => command,
            other => {
                self.busy = other;
                return;
            }
        };
        let concluded = effect::conclude(&self.record, &command, &answer, 0);
        let after = effect::state(&concluded, &command.verb, &answer);
        self.settle(command, answer, after, &ask);
        self.go_on(&ask);
    }

    /// Remembers, publishes, answers: in this order.
    fn settle(
        &mut self,
        command: AgentCommand,
        answer: Answer,
        after: After,
        ask: &impl Fn() -> Option<InstanceState>,
    ) {
        let concluded = effect::conclude(&self.record, &command, &answer, 0);
        if concluded == self.record && self.unanswered.is_empty() {
            self.answer(command, answer, after, ask);
        } else if self.unanswered.is_empty() && effect::may_wait(&command.verb, &answer) {
            self.record = concluded;
            self.unstored = true;
            self.answer(command, answer, after, ask);
        } else {
            self.acts.push(Do::Store(Box::new(concluded.clone())));
            self.busy = Some(Busy::Settle(command, Box::new((answer, concluded, after))));
        }
    }

    fn answer(
        &mut self,
        command: AgentCommand,
        answer: Answer,
        after: After,
        ask: &impl Fn() -> Option<InstanceState>,
    ) {
        match after {
            After::Same => {}
            After::Is(state) => self.known = Some(state),
            After::Gone => self.known = None,
            After::Ask => self.known = ask(),
        }
        self.acts.push(Do::Publish);
        for (operation, answer) in self.unanswered.drain(..) {
            self.acts.push(Do::Answer(operation, answer));
        }
        self.acts.push(Do::Answer(command.operation, answer));
    }

    /// How a write ended.
    pub fn stored(&mut self, written: bool, ask: impl Fn() -> Option<InstanceState>) {
        match self.busy.take() {
            Some(Busy::Intent(command, intent)) => {
                if written {
                    self.record = *intent;
                    self.unstored = false;
                    self.execute(command);
                } else {
                    let text = "can't write the ledger";
                    let answer = Err(CommandFailure::new(FailureKind::Internal, text));
                    self.record.keep(&command, &answer);
                    self.unstored = true;
                    self.acts.push(Do::Answer(command.operation, answer));
                }
            }
            Some(Busy::Settle(command, settled)) => {
                let (answer, concluded, after) = *settled;
                self.record = concluded;
                self.unstored = !written;
                let answer = if written || effect::is_intended(&command.verb, &answer) {
                    answer
                } else {
                    self.record
                        .finished
                        .retain(|done| done.operation != command.operation);
                    let text = "can't write the ledger";
                    answer.and(Err(CommandFailure::new(FailureKind::Internal, text)))
                };
                self.answer(command, answer, after, &ask);
            }
            Some(Busy::Later) => self.unstored = !written,
            other => self.busy = other,
        }
        self.go_on(&ask);
    }

    /// Where nothing is, nothing is kept in memory.
    pub fn retires(&self) -> bool {
        self.is_idle() && !self.unstored && self.record.generation().is_none()
    }
}
