//! The model that the checker explores: which steps are possible, and where they lead.

use godwit_agent::container::admission::Meanwhile;
use godwit_core::{Act, abortable};
use godwit_types::{Phase, Verb};
use stateright::{Model, Property};

use crate::{
    bounds::Bounds,
    drive::Drive,
    instance::Instance,
    message::{Sent, index},
    properties,
    steps::{Part, Step, Who},
    world::{World, container},
};

/// The hand-over as built, or with a mistake put in.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    pub bounds: Bounds,
    pub mutation: Option<Mutation>,
    /// Check only this property; a search then ends with the first path that breaks it.
    pub only: Option<&'static str>,
}

/// A mistake that the checker has to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The leader takes the destination for staged once everything was transferred.
    CommitBeforeStaged,
    /// A source that hears nothing while it is frozen lets its tasks run again.
    SourceThawsOnSilence,
    /// After the commit a leader that hears nothing of the destination uses the source's copy.
    SourceUsedAgainAfterCommit,
    /// The same by the way of a recovery, with its generation.
    TakenBackOnSilence,
}

impl Model for Handover {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.user(world, steps);
        self.leader(world, steps);
        network(world, steps);
        for host in 0..2 {
            if world.hosts[host].work.is_some() {
                steps.push(Step::Finish(host));
            }
        }
        if world.faults < self.bounds.faults {
            faults(world, steps);
            self.more_faults(world, steps);
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.faults += u8::from(step.is_fault());
        let mutation = self.mutation;
        match step {
            Step::Start => next.start(&self.bounds, mutation),
            Step::Cancel => next.cancel(),
            Step::Recover => next.recover(),
            Step::TakeBackOnSilence => next.recover(),
            Step::Notice => next.notice(mutation),
            Step::Commit => next.commit(mutation),
            Step::Arrive { command, part } => next.arrive(command, part),
            Step::Answer { answer, to } => next.answer(answer, to, mutation),
            Step::Finish(host) => next.finish(host),
            Step::Resend(at) => {
                let sent = next.leader.as_ref()?.pending.get(at)?.sent.clone();
                next.commands.push(sent);
            }
            Step::Election { kept } => next.election(kept, mutation),
            Step::GiveUp => next.give_up(mutation),
            Step::LoseCommand(at) => drop(next.commands.remove(at)),
            Step::LoseAnswer(at) => drop(next.answers.remove(at)),
            Step::RepeatCommand(at) => next.commands.push(next.commands[at].clone()),
            Step::RepeatAnswer(at) => next.answers.push(next.answers[at].clone()),
            Step::Restart {
                host,
                part,
                written,
            } => next.restart(host, part, written),
            Step::Fail(host) => next.fail(host),
            Step::Exit(host) => next.hosts[host].instance = Instance::Exited,
            Step::LoseShim(host) => next.lose_shim(host),
            Step::ThawOnSilence(host) => {
                if let Instance::Frozen { value, .. } = next.hosts[host].instance {
                    next.run(host, value);
                }
            }
            Step::UseSourceAgain => {
                let sent = thaw(next.leader.as_ref()?, &next)?;
                next.commands.push(sent);
            }
        }
        next.tidy(&self.bounds);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = properties::all();
        if self.bounds.lost_shims {
            all.extend(properties::recoveries(self.bounds.operator));
        }
        match self.only {
            Some(name) => all.into_iter().filter(|p| p.name == name).collect(),
            None => all,
        }
    }
}

impl Handover {
    fn user(&self, world: &World, steps: &mut Vec<Step>) {
        let stored = world.log.active_migrations().next().map(|m| m.phase);
        match stored {
            None if world.started < self.bounds.migrations => steps.push(Step::Start),
            // The leader notices in a step of its own.
            Some(phase) if abortable(phase) => steps.push(Step::Cancel),
            Some(Phase::Committed) if self.bounds.operator && is_gone(world) => {
                steps.push(Step::Recover);
            }
            _ => {}
        }
    }

    fn leader(&self, world: &World, steps: &mut Vec<Step>) {
        let Some(drive) = &world.leader else { return };
        let stored = world.phase();
        if stored == Some(Phase::Aborting) && drive.phase != Phase::Aborting {
            steps.push(Step::Notice);
        }
        if drive.phase == Phase::Staged && drive.pending.is_empty() {
            steps.push(Step::Commit);
        }
        for (at, pending) in drive.pending.iter().enumerate() {
            if world.is_lost(pending) {
                steps.push(Step::Resend(at));
            }
        }
    }

    fn more_faults(&self, world: &World, steps: &mut Vec<Step>) {
        for (host, is) in world.hosts.iter().enumerate() {
            let frozen = matches!(is.instance, Instance::Frozen { .. });
            if frozen && self.mutation == Some(Mutation::SourceThawsOnSilence) {
                steps.push(Step::ThawOnSilence(host));
            }
            let held = matches!(
                is.instance,
                Instance::Frozen { .. } | Instance::Armed { .. } | Instance::Staged { .. }
            );
            if (held || is.instance.runs()) && self.bounds.lost_shims {
                steps.push(Step::LoseShim(host));
            }
        }
        if let Some(drive) = &world.leader
            && drive.phase == Phase::Committed
            && self.mutation == Some(Mutation::SourceUsedAgainAfterCommit)
        {
            steps.push(Step::UseSourceAgain);
        }
        if world.phase() == Some(Phase::Committed)
            && world.leader.is_some()
            && self.mutation == Some(Mutation::TakenBackOnSilence)
        {
            steps.push(Step::TakeBackOnSilence);
        }
    }
}

/// What the operator answers for: whatever was there is lost. Whether it ran before, nobody knows.
fn is_gone(world: &World) -> bool {
    let owner = &world.log.containers[&container()].host;
    world.leader.is_some() && matches!(world.hosts[index(owner)].instance, Instance::Lost { .. })
}

fn network(world: &World, steps: &mut Vec<Step>) {
    for (command, sent) in world.commands.iter().enumerate() {
        let host = &world.hosts[sent.host];
        let parts: &[Part] = match host.meanwhile(&sent.command) {
            None | Some(Meanwhile::Join) => &[Part::Nothing],
            Some(Meanwhile::Interrupt) => &[Part::Nothing, Part::Whole],
            // To wait in the agent or in the network is the same.
            Some(Meanwhile::Wait) => &[],
        };
        steps.extend(parts.iter().map(|&part| Step::Arrive { command, part }));
    }
    let former = world.former.as_ref().map(|(drive, _)| drive);
    for (who, drive) in [(Who::Leader, world.leader.as_ref()), (Who::Former, former)] {
        let pending = drive.map_or(&[][..], |drive| &drive.pending);
        for (answer, reply) in world.answers.iter().enumerate() {
            let waits = |p: &crate::drive::Pending| *p.sent.operation() == reply.operation;
            if pending.iter().any(waits) {
                steps.push(Step::Answer { answer, to: who });
            }
        }
    }
}

fn faults(world: &World, steps: &mut Vec<Step>) {
    if let Some(drive) = &world.leader {
        steps.extend((0..=drive.detached.len()).map(|kept| Step::Election { kept }));
        if !drive.insists() && !drive.pending.is_empty() {
            steps.push(Step::GiveUp);
        }
    }
    for at in 0..world.commands.len() {
        steps.extend([Step::LoseCommand(at), Step::RepeatCommand(at)]);
    }
    for at in 0..world.answers.len() {
        steps.extend([Step::LoseAnswer(at), Step::RepeatAnswer(at)]);
    }
    for (host, is) in world.hosts.iter().enumerate() {
        let parts: &[Part] = match is.work.as_ref().map(|work| &work.command.verb) {
            None => &[Part::Nothing],
            Some(
                Verb::Freeze { .. }
                | Verb::Prepare { .. }
                | Verb::Discard { .. }
                | Verb::Release { .. },
            ) => &[Part::Nothing, Part::Half, Part::Whole],
            Some(_) => &[Part::Nothing, Part::Whole],
        };
        let written: &[bool] = if is.disk == is.memory {
            &[true]
        } else {
            &[false, true]
        };
        for &part in parts {
            steps.extend(written.iter().map(|&written| Step::Restart {
                host,
                part,
                written,
            }));
        }
        if is.work.is_some() {
            steps.push(Step::Fail(host));
        }
        if is.instance.runs() {
            steps.push(Step::Exit(host));
        }
    }
}

/// The undo of the source, as the table has it before the commit.
fn thaw(drive: &Drive, world: &World) -> Option<Sent> {
    let mut undone = drive.clone();
    undone.phase = Phase::Aborting;
    let godwit_core::Step::Undo(asks) = undone.next(&world.log) else {
        return None;
    };
    let mut asks = asks.into_iter();
    asks.find(|ask| ask.act == Act::Thaw).map(Sent::new)
}
