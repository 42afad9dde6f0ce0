//! A host: its runtime, which outlives the agent, its ledger on the disk, and the agent itself.

pub mod runtime;
mod session;
mod task;

use std::collections::BTreeMap;

use godwit_agent::{
    container::effect,
    ledger::{Answer, Record, Role},
};
use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, FailureKind, Generation, InstanceReport,
    InstanceState, MigrationId, OperationId, Verb,
};

use crate::{
    bug::Bug,
    context::Context,
    event::{Event, FromAgent, MILLI, Micros, SECOND, ToAgent},
    host_name,
    network::LinkId,
};
use runtime::{Doing, Runtime};
use session::{Session, Wants};
use task::{Do, Task};

const TICK: Micros = 100 * MILLI;

/// Work that the runtime has in hand.
#[derive(Debug)]
pub struct Work {
    pub command: AgentCommand,
    /// Of the agent that waits for it.
    pub life: u64,
    /// What had arrived when it began.
    pub arrived: Option<u64>,
}

/// What a crash takes away.
#[derive(Debug)]
struct Process {
    tasks: BTreeMap<ContainerId, Task>,
    session: Session,
    board: BTreeMap<ContainerId, (Generation, InstanceState)>,
    /// The board has changed since the last report.
    changed: bool,
    answers: Vec<(OperationId, Answer)>,
    /// Whose checkpoint is awaited, and what has come.
    doors: BTreeMap<ContainerId, (MigrationId, Generation)>,
    arrived: BTreeMap<ContainerId, u64>,
    /// Being written.
    writes: BTreeMap<ContainerId, Record>,
}

#[derive(Debug)]
pub struct Agent {
    pub index: usize,
    node: usize,
    members: usize,
    pub runtime: Runtime,
    pub ledger: BTreeMap<ContainerId, Record>,
    works: BTreeMap<u64, Work>,
    busy_until: BTreeMap<ContainerId, Micros>,
    next_work: u64,
    process: Option<Process>,
    pub life: u64,
    pub disk_full: bool,
    /// How often a verb fails, of 10,000.
    pub failing: u64,
}

impl Agent {
    pub fn new(index: usize, members: usize, failing: u64) -> Self {
        Self {
            index,
            node: members + index,
            members,
            runtime: Runtime::default(),
            ledger: BTreeMap::new(),
            works: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            next_work: 0,
            process: None,
            life: 0,
            disk_full: false,
            failing,
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Nothing is under way, and what is known is on the disk.
    pub fn is_quiet(&self) -> bool {
        self.works.is_empty()
            && self.process.as_ref().is_some_and(|process| {
                let mut tasks = process.tasks.values();
                process.session.link().is_some() && tasks.all(|t| t.is_idle() && !t.unstored)
            })
    }

    /// Finds the instances that outlived the agent before this one.
    pub fn start(&mut self, context: &mut Context) {
        self.life += 1;
        let local = context.local(self.node);
        let mut process = Process {
            tasks: BTreeMap::new(),
            session: Session::new(local),
            board: BTreeMap::new(),
            changed: false,
            answers: Vec::new(),
            doors: BTreeMap::new(),
            arrived: BTreeMap::new(),
            writes: BTreeMap::new(),
        };
        for (id, instance) in &self.runtime.instances {
            let state = instance.state();
            let Some(record) = self.ledger.get(id) else {
                context.event(format_args!(
                    "agent {} has an instance that its ledger does not have: {}",
                    self.index,
                    id.short()
                ));
                continue;
            };
            let found = effect::found(record, &state);
            let unstored = found != *record && self.disk_full;
            if found != *record && !unstored && context.bug != Some(Bug::Forgetful) {
                self.ledger.insert(id.clone(), found.clone());
            }
            let record = found;
            if let Role::Incoming {
                generation,
                migration,
                ..
            } = &record.role
                && !record.succeeded("stage", migration)
            {
                process
                    .doors
                    .insert(id.clone(), (migration.clone(), *generation));
            }
            let mut task = Task::new(record, Some(state), context.bug);
            task.unstored = unstored;
            process.tasks.insert(id.clone(), task);
        }
        self.process = Some(process);
        context.event(format_args!("agent {} starts", self.index));
        let (host, life) = (self.index, self.life);
        context.after(MILLI, Event::AgentTick { host, life });
        self.act(context);
    }

    /// The agent is gone; its containers go on, and what their shims were asked to do is done, or
    /// is not.
    pub fn crash(&mut self, context: &mut Context) {
        if self.process.take().is_none() {
            return;
        }
        self.life += 1;
        let host = self.index;
        context.net.close_all(|link| link.host == host, true);
        let rng = &mut context.rng;
        self.works
            .retain(|_, work| !is_own(&work.command.verb) && rng.chance(5000));
        context.event(format_args!("agent {host} crashes"));
    }

    pub fn tick(&mut self, lives: &[Option<u64>], context: &mut Context) {
        let (host, life) = (self.index, self.life);
        let pause = TICK + context.rng.range(0, 10 * MILLI);
        context.after(pause, Event::AgentTick { host, life });
        let local = context.local(self.node);
        let (members, node) = (self.members, self.node);
        let Some(process) = &mut self.process else {
            return;
        };
        match process.session.tick(members, local, context) {
            Wants::Nothing => {}
            Wants::Report => process.changed = true,
            Wants::Hello(member) => {
                // Marked as seen before the report is made: a change after it is reported again.
                process.changed = false;
                let reached =
                    context.net.reaches(node, member) && context.net.reaches(member, node);
                match lives[member].filter(|_| reached) {
                    Some(member_life) => {
                        let link = context.net.connect(host, life, member, member_life);
                        process.session.connecting(link, local);
                        let hello = FromAgent::Hello(host_name(host), process.report());
                        context.event(format_args!(
                            "agent {host} tries member {member} by session {link}"
                        ));
                        context.tell_member(link, hello);
                    }
                    None => process.session.refused(None, local, context),
                }
            }
        }
        for (id, task) in &mut process.tasks {
            if task.known.is_some() && task.watches() {
                let state = self.runtime.state(id);
                if state != task.known {
                    task.observe(state);
                }
            }
            if context.rng.chance(2000) {
                task.catch_up();
            }
        }
        if context.bug == Some(Bug::ThawOnSilence) && process.session.silence(local) > 3 * SECOND {
            self.thaw_all(context.now);
        }
        self.act(context);
    }

    /// The mistake that the frozen state must never make.
    fn thaw_all(&mut self, now: Micros) {
        let frozen: Vec<_> = self
            .runtime
            .instances
            .iter()
            .filter_map(|(id, instance)| match &instance.doing {
                Doing::Frozen(migration) => Some((id.clone(), migration.clone())),
                _ => None,
            })
            .collect();
        for (container, migration) in frozen {
            let verb = Verb::Thaw {
                migration,
                container,
                generation: Generation::FIRST,
            };
            // It is frozen: it can be thawed.
            let _ = self.runtime.perform(&verb, None, now);
        }
    }

    pub fn receive(&mut self, link: LinkId, message: ToAgent, context: &mut Context) {
        let local = context.local(self.node);
        let Some(process) = &mut self.process else {
            return;
        };
        if !process.session.hears(link) {
            return;
        }
        match message {
            ToAgent::Welcome => {
                process.session.welcome(local);
                // What changed since the hello.
                process.changed |= context.rng.chance(5000);
            }
            ToAgent::NotLeader(hint) => process.session.refused(hint, local, context),
            ToAgent::Command(command) => {
                let Some(id) = command.verb.container().cloned() else {
                    return;
                };
                context.event(format_args!(
                    "agent {} is asked to {} {} ({})",
                    self.index,
                    command.verb.name(),
                    id.short(),
                    command.operation
                ));
                let (runtime, ledger) = (&self.runtime, &self.ledger);
                let task = process.tasks.entry(id.clone()).or_insert_with(|| {
                    let record = ledger.get(&id).cloned();
                    let record = record.unwrap_or_else(|| Record::unknown(id.clone(), 0));
                    let here = record.generation().is_some();
                    let known = here.then(|| runtime.state(&id)).flatten();
                    Task::new(record, known, context.bug)
                });
                task.submit(*command, || runtime.state(&id));
            }
        }
        self.act(context);
    }

    /// The runtime comes to where a work takes effect. None: it was dropped.
    pub fn take_work(&mut self, number: u64) -> Option<Work> {
        self.works.remove(&number)
    }

    /// Where a checkpoint goes, if it is awaited.
    pub fn arrives(
        &mut self,
        id: &ContainerId,
        migration: &MigrationId,
        generation: Generation,
        output: u64,
    ) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let awaited = process
            .doors
            .get(id)
            .is_some_and(|(m, g)| m == migration && *g == generation);
        if awaited {
            process.arrived.insert(id.clone(), output);
        }
        awaited
    }

    pub fn finished(
        &mut self,
        id: &ContainerId,
        number: u64,
        verb_answer: Answer,
        context: &mut Context,
    ) {
        let Some(process) = &mut self.process else {
            return;
        };
        let runtime = &self.runtime;
        if let Some(task) = process.tasks.get_mut(id) {
            if let Some(Verb::Prepare {
                migration,
                generation,
                ..
            }) = task.verb_of(number)
                && verb_answer.is_ok()
            {
                let door = (migration.clone(), *generation);
                process.doors.insert(id.clone(), door);
            }
            task.finished(number, verb_answer, || runtime.state(id));
        }
        self.act(context);
    }

    /// A write to the ledger is over.
    pub fn stored(&mut self, id: &ContainerId, context: &mut Context) {
        let written = !self.disk_full;
        let Some(process) = &mut self.process else {
            return;
        };
        if let Some(record) = process.writes.remove(id)
            && written
            && context.bug != Some(Bug::Forgetful)
        {
            self.ledger.insert(id.clone(), record);
        }
        let runtime = &self.runtime;
        if let Some(task) = process.tasks.get_mut(id) {
            task.stored(written, || runtime.state(id));
        }
        self.act(context);
    }

    /// Does what the tasks ask for, then says what there is to say.
    fn act(&mut self, context: &mut Context) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let ids: Vec<_> = process.tasks.keys().cloned().collect();
        for id in ids {
            while let Some(task) = process.tasks.get_mut(&id)
                && !task.acts.is_empty()
            {
                for act in std::mem::take(&mut task.acts) {
                    self.do_one(&id, act, &mut process, context);
                }
            }
            if process.tasks.get(&id).is_some_and(Task::retires) {
                process.tasks.remove(&id);
            }
        }
        self.speak(&mut process, context);
        self.process = Some(process);
    }

    fn do_one(&mut self, id: &ContainerId, act: Do, process: &mut Process, context: &mut Context) {
        match act {
            Do::Answer(operation, answer) => process.answers.push((operation, answer)),
            Do::Store(record) => {
                process.writes.insert(id.clone(), *record);
                let took = context.rng.range(300, 8000);
                let (host, life, container) = (self.index, self.life, id.clone());
                context.after(
                    took,
                    Event::Stored {
                        host,
                        life,
                        container,
                    },
                );
            }
            Do::Drop(number) => {
                // What the shim was asked already it may still do.
                let own = self
                    .works
                    .get(&number)
                    .is_some_and(|work| is_own(&work.command.verb));
                if own || context.rng.chance(5000) {
                    self.works.remove(&number);
                }
            }
            Do::Publish => {
                let Some(task) = process.tasks.get(id) else {
                    return;
                };
                let line = task.record.generation().zip(task.known.clone());
                let changed = match line {
                    Some(line) => process.board.insert(id.clone(), line.clone()) != Some(line),
                    None => process.board.remove(id).is_some(),
                };
                process.changed |= changed;
            }
            Do::Work(command) => self.work(id, command, process, context),
        }
    }

    fn work(
        &mut self,
        id: &ContainerId,
        command: AgentCommand,
        process: &mut Process,
        context: &mut Context,
    ) {
        self.next_work += 1;
        let work = self.next_work;
        if let Some(task) = process.tasks.get_mut(id) {
            task.begun(work);
        }
        let mut arrived = None;
        match &command.verb {
            Verb::Stage { .. } => {
                process.doors.remove(id);
                arrived = process.arrived.remove(id);
            }
            Verb::Resume { .. } | Verb::Discard { .. } | Verb::Prepare { .. } => {
                process.doors.remove(id);
                process.arrived.remove(id);
            }
            _ => {}
        }
        let (low, high) = match &command.verb {
            Verb::Run { .. } | Verb::Prepare { .. } => (20, 300),
            Verb::Stop { grace_ms, .. } => (1, 2 + *grace_ms),
            Verb::PreCopy { .. } => (30, 2500),
            Verb::Freeze { .. } | Verb::Stage { .. } => (20, 150),
            Verb::Transfer { .. } => (5, 300),
            _ => (1, 20),
        };
        let free = self.busy_until.get(id).copied().unwrap_or(0);
        let at = free.max(context.now) + context.rng.range(low * MILLI, high * MILLI);
        self.busy_until.insert(id.clone(), at);
        let life = self.life;
        self.works.insert(
            work,
            Work {
                command,
                life,
                arrived,
            },
        );
        let (host, container) = (self.index, id.clone());
        let effect = Event::Effect {
            host,
            container,
            work,
        };
        context.queue.put(at, effect);
    }

    /// A verb that fails for reasons of the host's own.
    pub fn fails(&self, verb: &Verb, context: &mut Context) -> Option<CommandFailure> {
        // One that runs already is not begun again, and can't fail to.
        let runs = matches!(verb, Verb::Run { .. })
            && verb.container().is_some_and(|id| {
                let instance = self.runtime.instances.get(id);
                instance.is_some_and(|i| matches!(i.doing, Doing::Running { .. }))
            });
        if !context.rng.chance(self.failing) || runs {
            return None;
        }
        let kind = match verb {
            Verb::PreCopy { .. } => FailureKind::NotConverging,
            Verb::CheckSource { .. } | Verb::CheckDestination { .. } => FailureKind::Unfit,
            _ => FailureKind::Internal,
        };
        Some(CommandFailure::new(kind, "the host could not"))
    }

    /// Answers go before reports, unless the session was awake already.
    fn speak(&mut self, process: &mut Process, context: &mut Context) {
        let local = context.local(self.node);
        if process.session.link().is_none() {
            // The ledger has them, and the next leader asks again.
            process.answers.clear();
            return;
        }
        let report_first = context.rng.chance(3000);
        for turn in [true, false] {
            if turn == report_first {
                if std::mem::take(&mut process.changed) {
                    context.event(format_args!(
                        "agent {} reports {} instances",
                        self.index,
                        process.board.len()
                    ));
                    let report = FromAgent::Report(process.report());
                    process.session.send(report, context);
                    process.session.reported(local);
                }
            } else {
                for (operation, answer) in std::mem::take(&mut process.answers) {
                    let good = if answer.is_ok() { "done" } else { "failed" };
                    context.event(format_args!(
                        "agent {} answers {operation}: {good}",
                        self.index
                    ));
                    let answer = FromAgent::Answer(operation, Box::new(answer));
                    process.session.send(answer, context);
                }
            }
        }
    }
}

/// What an agent does itself: it ends with the agent.
fn is_own(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Run { .. } | Verb::Prepare { .. } | Verb::Transfer { .. }
    )
}

impl Process {
    fn report(&self) -> Vec<InstanceReport> {
        self.board
            .iter()
            .map(|(container, (generation, state))| InstanceReport {
                container: container.clone(),
                generation: *generation,
                state: state.clone(),
                details: Default::default(),
            })
            .collect()
    }
}
