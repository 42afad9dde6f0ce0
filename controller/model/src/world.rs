//! The whole of it at one moment, and what each step makes of it.

use godwit_agent::{
    container::{admission::Meanwhile, effect},
    ledger::{Answer, Record},
};
use godwit_core::{
    Act, Applied, Command, NewContainer, Record as Written, RecoveredBy, State, apply,
    container_operation, operation,
};
use godwit_types::{
    AgentCommand, ContainerId, Digest, FailureKind, Generation, InstanceState, Limits, MigrationId,
    MigrationOptions, OperationId, Outcome, Phase, Priority, Refusal, Verb,
};

use crate::{
    bounds::Bounds,
    drive::{Drive, Pending, nothing_to_do},
    handover::Mutation,
    host::Host,
    instance::Instance,
    kept::Kept,
    message::{Reply, Sent, host_name},
    steps::{Part, Who},
};

/// Failures of an act that is insisted on are answered by so many attempts in the model. One that
/// needs more never ends.
const ATTEMPTS: u32 = 4;
/// What goes back after its commit is stored as.
pub const RECOVERED: &str = "recovered";
/// What the user's cancel is stored as.
pub const CANCELLED: &str = "cancelled by the operator";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The replicated state: what is in it is never lost.
    pub log: Kept<State>,
    /// None: there is nothing to do.
    pub leader: Option<Drive>,
    /// With the state as it was when the lead was lost.
    pub former: Option<(Drive, Kept<State>)>,
    pub hosts: [Host; 2],
    /// Sorted: the network keeps no order.
    pub commands: Vec<Sent>,
    pub answers: Vec<Reply>,
    /// The output that the container's client has seen.
    pub seen: u8,
    /// A copy began to run that had less behind it than was seen.
    pub forgot: bool,
    /// How much went wrong.
    pub faults: u8,
    /// Migrations that were asked for.
    pub started: u8,
}

pub fn container() -> ContainerId {
    ContainerId::from_bytes([1; 32])
}

impl World {
    /// A container runs on the first host; nothing else was ever asked for.
    pub fn new() -> Self {
        let mut log = State::default();
        let mut done = |command: &Command| {
            let applied = apply(&mut log, command);
            assert_eq!(applied, Ok(Applied::Changed), "{command:?}");
        };
        done(&Command::Init {
            cluster: "model".to_owned(),
        });
        for index in 0..2 {
            done(&Command::HostSeen {
                name: host_name(index),
                address: format!("192.0.2.{}:7402", index + 1),
                underlay: [192, 0, 2, index as u8 + 1].into(),
            });
        }
        done(&Command::CreateContainer(Box::new(NewContainer {
            id: container(),
            name: "c1".parse().expect("a valid literal"),
            image: "redis".parse().expect("a valid literal"),
            image_id: Digest::from_sha256([7; 32]),
            command: vec![],
            env: vec![],
            limits: Limits::default(),
            hostname: String::new(),
            options: godwit_types::Options::default(),
            network: None,
            host: host_name(0),
            created_ms: 1,
            only_create: false,
        })));
        done(&Command::ReportInstance {
            host: host_name(0),
            container: container(),
            generation: Generation::FIRST,
            state: Some(InstanceState::Running { pid: 1 }),
            details: None,
        });
        let unknown = Record::unknown(container(), 0);
        let verb = Verb::Run {
            container: container(),
            generation: Generation::FIRST,
            spec: Box::new(log.containers[&container()].spec.clone()),
        };
        let run = AgentCommand {
            operation: container_operation(&container(), &verb, 0),
            verb,
        };
        let begun = effect::begin(&unknown, &run).expect("a run has an intent");
        let runs = effect::conclude(&begun, &run, &Ok(Outcome::Running { pid: 1 }), 0);
        Self {
            log: Kept::new(log),
            leader: None,
            former: None,
            hosts: [
                Host::new(runs, Instance::Running { value: 1 }),
                Host::new(unknown, Instance::Absent),
            ],
            commands: Vec::new(),
            answers: Vec::new(),
            seen: 1,
            forgot: false,
            faults: 0,
            started: 0,
        }
    }

    /// Of the newest migration.
    pub fn phase(&self) -> Option<Phase> {
        self.log.migrations.values().last().map(|m| m.phase)
    }

    // The log.

    fn write(&mut self, command: &Command) -> Result<Applied, Refusal> {
        let mut state = (*self.log).clone();
        let applied = apply(&mut state, command)?;
        if applied == Applied::Changed {
            self.log = Kept::new(state);
        }
        Ok(applied)
    }

    fn advance_log(&mut self, id: &MigrationId, to: Phase) -> Result<Applied, Refusal> {
        self.write(&Command::Advance {
            migration: id.clone(),
            to,
            record: Written {
                pid: (to == Phase::Resumed).then_some(1),
                ..Written::default()
            },
        })
    }

    /// What was proposed before comes before. A refusal is heard by nobody.
    fn flush(&mut self, drive: &mut Drive) {
        for phase in std::mem::take(&mut drive.detached) {
            drop(self.advance_log(&drive.migration, phase));
        }
    }

    // The user.

    pub fn start(&mut self, bounds: &Bounds, mutation: Option<Mutation>) {
        self.started += 1;
        let at = self.log.containers[&container()].host.clone();
        let to = host_name(usize::from(at == host_name(0)));
        let started = self.write(&Command::StartMigration {
            id: MigrationId::from_bytes([self.started; 8]),
            container: container(),
            to,
            started_ms: u64::from(self.started),
            options: if bounds.pre_copy {
                MigrationOptions::default()
            } else {
                MigrationOptions::stop()
            },
            priority: Priority::Normal,
            drain: false,
        });
        assert_eq!(started, Ok(Applied::Changed));
        self.leader = Drive::of(&self.log);
        self.proceed(Who::Leader, mutation);
    }

    pub fn cancel(&mut self) {
        if let Some(mut drive) = self.leader.take() {
            self.flush(&mut drive);
            let cancelled = self.write(&Command::Abort {
                migration: drive.migration.clone(),
                error: CANCELLED.to_owned(),
                failure: None,
            });
            assert_eq!(cancelled, Ok(Applied::Changed));
            self.leader = Some(drive);
        }
    }

    /// By an operator's word.
    pub fn recover(&mut self) {
        if let Some(mut drive) = self.leader.take() {
            self.flush(&mut drive);
            let taken_back = self.take_back(&drive.migration, RecoveredBy::Operator);
            assert_eq!(taken_back, Ok(Applied::Changed));
            self.leader = Some(drive);
        }
    }

    fn take_back(&mut self, id: &MigrationId, by: RecoveredBy) -> Result<Applied, Refusal> {
        self.write(&Command::TakeBack {
            migration: id.clone(),
            by,
            error: RECOVERED.to_owned(),
        })
    }

    // The leader.

    /// Works until it waits for an answer, for the commit, or for nothing.
    pub fn proceed(&mut self, who: Who, mutation: Option<Mutation>) {
        let Some((mut drive, view)) = self.take(who) else {
            return;
        };
        loop {
            let state = view.as_ref().unwrap_or(&self.log).clone();
            drive.look(&state);
            if !drive.pending.is_empty() {
                break;
            }
            match drive.next(&state) {
                godwit_core::Step::Ask { ask, .. }
                    if ask.act == Act::Stage && mutation == Some(Mutation::CommitBeforeStaged) =>
                {
                    drive.phase = Phase::Staged;
                    drive.staged = true;
                }
                godwit_core::Step::Ask { ask, reaches } => {
                    drive.pending.push(Pending::new(ask, reaches));
                }
                godwit_core::Step::Undo(asks) => {
                    let asks = asks.into_iter().map(|ask| Pending::new(ask, None));
                    drive.pending.extend(asks);
                }
                godwit_core::Step::Commit if who == Who::Leader => break,
                godwit_core::Step::Impossible(reason) => {
                    unreachable!("hosts and containers stay in the model: {reason}")
                }
                // The lead that was lost ends where it has to write.
                godwit_core::Step::Commit | godwit_core::Step::Finished => return,
            }
            let sent = drive.pending.iter().map(|pending| pending.sent.clone());
            self.commands.extend(sent);
        }
        self.put(who, drive, view);
    }

    fn take(&mut self, who: Who) -> Option<(Drive, Option<Kept<State>>)> {
        match who {
            Who::Leader => self.leader.take().map(|drive| (drive, None)),
            Who::Former => self.former.take().map(|(drive, view)| (drive, Some(view))),
        }
    }

    fn put(&mut self, who: Who, drive: Drive, view: Option<Kept<State>>) {
        match (who, view) {
            (Who::Former, Some(view)) => self.former = Some((drive, view)),
            _ => self.leader = Some(drive),
        }
    }

    /// One who was deposed can't write, and ends there.
    fn written(
        &mut self,
        who: Who,
        mut drive: Drive,
        write: impl FnOnce(&mut Self, &mut Drive) -> bool,
    ) {
        if who == Who::Former {
            return;
        }
        self.flush(&mut drive);
        if write(self, &mut drive) {
            self.leader = Some(drive);
        } else {
            // It is left as it is stored, and begun anew.
            self.leader = Drive::of(&self.log);
        }
    }

    fn advance(&mut self, who: Who, drive: Drive, to: Phase) {
        self.written(who, drive, |world, drive| {
            match world.advance_log(&drive.migration, to) {
                Ok(_) => {
                    drive.phase = to;
                    true
                }
                Err(_) => drive.look(&world.log),
            }
        });
    }

    fn abort(&mut self, who: Who, mut drive: Drive) {
        drive.pending.clear();
        self.written(who, drive, |world, drive| world.abort_log(drive));
    }

    fn abort_log(&mut self, drive: &mut Drive) -> bool {
        let aborted = self.write(&Command::Abort {
            migration: drive.migration.clone(),
            error: "failed".to_owned(),
            failure: None,
        });
        drive.phase = Phase::Aborting;
        aborted.is_ok()
    }

    /// The one commit point.
    pub fn commit(&mut self, mutation: Option<Mutation>) {
        let Some(drive) = self.leader.take() else {
            return;
        };
        self.written(Who::Leader, drive, |world, drive| {
            let id = drive.migration.clone();
            if std::mem::take(&mut drive.staged) {
                drop(world.advance_log(&id, Phase::Staged));
            }
            match world.advance_log(&id, Phase::Committed) {
                Ok(_) => {
                    drive.phase = Phase::Committed;
                    true
                }
                Err(_) => world.abort_log(drive),
            }
        });
        self.proceed(Who::Leader, mutation);
    }

    pub fn notice(&mut self, mutation: Option<Mutation>) {
        if let Some(drive) = &mut self.leader {
            drive.look(&self.log);
        }
        self.proceed(Who::Leader, mutation);
    }

    pub fn give_up(&mut self, mutation: Option<Mutation>) {
        if let Some(drive) = self.leader.take() {
            self.abort(Who::Leader, drive);
        }
        self.proceed(Who::Leader, mutation);
    }

    /// `kept`: how many of the proposals that were not awaited were stored in time.
    pub fn election(&mut self, kept: usize, mutation: Option<Mutation>) {
        let Some(mut drive) = self.leader.take() else {
            return;
        };
        let view = self.log.clone();
        drive.detached.truncate(kept);
        self.flush(&mut drive);
        self.former = Some((drive, view));
        self.leader = Drive::of(&self.log);
        self.proceed(Who::Leader, mutation);
    }

    pub fn answer(&mut self, answer: usize, who: Who, mutation: Option<Mutation>) {
        let Reply {
            operation: id,
            answer,
        } = self.answers.remove(answer);
        let Some((mut drive, view)) = self.take(who) else {
            return;
        };
        let Some(at) = drive.pending.iter().position(|p| *p.sent.operation() == id) else {
            self.put(who, drive, view);
            return;
        };
        let pending = drive.pending.remove(at);
        if drive.insists() {
            match &answer {
                // The destination's definite word.
                Err(failure)
                    if failure.kind == FailureKind::NeverResumed && pending.act == Act::Resume =>
                {
                    drive.pending.clear();
                    self.written(who, drive, |world, drive| {
                        let id = drive.migration.clone();
                        let taken_back = world.take_back(&id, RecoveredBy::Destination).is_ok();
                        drive.look(&world.log);
                        taken_back
                    });
                    self.proceed(who, mutation);
                    return;
                }
                Err(failure) if !nothing_to_do(pending.act, failure.kind) => {
                    self.again(&mut drive, pending);
                    self.put(who, drive, view);
                    return;
                }
                _ => {}
            }
            if !drive.pending.is_empty() {
                self.put(who, drive, view);
                return;
            }
            let to = match pending.reaches {
                Some(phase) => phase,
                None => Phase::Aborted,
            };
            self.advance(who, drive, to);
        } else {
            if answer.is_err() {
                self.abort(who, drive);
                self.proceed(who, mutation);
                return;
            }
            if pending.act == Act::CheckSource {
                drive.checked();
            }
            match pending.reaches {
                Some(phase @ (Phase::PreCopy | Phase::Frozen | Phase::Transferred)) => {
                    drive.phase = phase;
                    drive.detached.push(phase);
                    self.put(who, drive, view);
                }
                Some(Phase::Staged) => {
                    drive.phase = Phase::Staged;
                    drive.staged = true;
                    self.put(who, drive, view);
                }
                Some(phase) => self.advance(who, drive, phase),
                None => self.put(who, drive, view),
            }
        }
        self.proceed(who, mutation);
    }

    /// A failure of what is insisted on: the next attempt has its own id.
    fn again(&mut self, drive: &mut Drive, mut pending: Pending) {
        pending.attempt += 1;
        if pending.attempt < ATTEMPTS {
            let mut command = (*pending.sent.command).clone();
            command.operation = operation(&drive.migration, pending.act, pending.attempt);
            pending.sent.command = command.into();
            self.commands.push(pending.sent.clone());
        } else {
            // Out of the model's patience: it waits for ever.
            pending.attempt = ATTEMPTS;
        }
        drive.pending.push(pending);
    }

    /// Whether a pending command is neither under way nor being done.
    pub fn is_lost(&self, pending: &Pending) -> bool {
        let id = pending.sent.operation();
        let host = &self.hosts[pending.sent.host];
        pending.attempt < ATTEMPTS
            && self.commands.iter().all(|sent| sent.operation() != id)
            && self.answers.iter().all(|reply| reply.operation != *id)
            && host.unanswered.iter().all(|reply| reply.operation != *id)
            && host
                .work
                .as_ref()
                .is_none_or(|w| w.command.operation != *id)
    }

    // The hosts.

    pub fn arrive(&mut self, command: usize, part: Part) {
        let sent = self.commands.remove(command);
        let replies = match self.hosts[sent.host].meanwhile(&sent.command) {
            None => self.hosts[sent.host].handle(&sent.command),
            Some(Meanwhile::Interrupt) => {
                self.leave(sent.host, part);
                self.hosts[sent.host].interrupt(&sent.command)
            }
            // Its answer comes with that of the one before.
            Some(Meanwhile::Join | Meanwhile::Wait) => Vec::new(),
        };
        self.answers.extend(replies);
    }

    pub fn finish(&mut self, host: usize) {
        let Some(work) = self.hosts[host].work.take() else {
            return;
        };
        let answer = self.execute(host, &work.command.verb, work.broken);
        let replies = self.hosts[host].settle(&work.command, answer);
        self.answers.extend(replies);
    }

    pub fn fail(&mut self, host: usize) {
        let Some(work) = self.hosts[host].work.take() else {
            return;
        };
        let answer = self.break_down(host, &work.command.verb);
        let replies = self.hosts[host].settle(&work.command, answer);
        self.answers.extend(replies);
    }

    pub fn restart(&mut self, host: usize, part: Part, written: bool) {
        self.leave(host, part);
        self.hosts[host].restart(written);
        // What came from the other agent breaks off.
        if let Some(work) = &mut self.hosts[1 - host].work {
            work.broken |= matches!(
                work.command.verb,
                Verb::PreCopy { .. } | Verb::Transfer { .. }
            );
        }
    }

    /// What is being done ends with nobody there who would answer.
    fn leave(&mut self, host: usize, part: Part) {
        let Some(work) = self.hosts[host].work.clone() else {
            return;
        };
        if part != Part::Nothing {
            drop(self.execute(host, &work.command.verb, work.broken));
        }
        if part == Part::Half {
            self.hosts[host].instance.halve();
        }
    }

    /// A copy begins to run with this much output behind it, and makes more, which is seen.
    pub fn run(&mut self, host: usize, value: u8) {
        self.forgot |= value < self.seen;
        self.seen = self.seen.max(value) + 1;
        self.hosts[host].instance = Instance::Running { value: self.seen };
    }

    /// Does what was admitted; see [`crate::instance`].
    fn execute(&mut self, host: usize, verb: &Verb, broken: bool) -> Answer {
        crate::instance::execute(self, host, verb, broken)
    }

    fn break_down(&mut self, host: usize, verb: &Verb) -> Answer {
        crate::instance::break_down(&mut self.hosts[host], verb)
    }

    /// The shim ends, and CRIU and the tasks with it.
    pub fn lose_shim(&mut self, host: usize) {
        let instance = &mut self.hosts[host].instance;
        let never = matches!(instance, Instance::Armed { .. } | Instance::Staged { .. });
        *instance = Instance::Lost { never };
    }

    /// Two worlds that differ in nothing that can matter are one.
    pub fn tidy(&mut self, bounds: &Bounds) {
        self.commands.sort();
        self.answers.sort();
        // Nobody can come to wait for what nobody waits for.
        if self.faults >= bounds.faults {
            let waits = |id: &OperationId, drive: Option<&Drive>| {
                drive.is_some_and(|d| d.pending.iter().any(|p| p.sent.operation() == id))
            };
            let (leader, former) = (self.leader.as_ref(), self.former.as_ref().map(|f| &f.0));
            self.answers
                .retain(|r| waits(&r.operation, leader) || waits(&r.operation, former));
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
