//! What only the leader does, as `controller/src/leader` does it with tasks, here by steps: each
//! job is looked at whenever something came, and asks, waits or writes.

mod ask;
mod container;
mod migration;
pub mod proposal;
pub mod sessions;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use godwit_core::{Command, Job, State, due, news};
use godwit_types::{FailureKind, HostName, InstanceReport, OperationId};

use crate::{
    context::Context,
    event::{FromAgent, MILLI, Micros, ToAgent},
    host_address,
    network::LinkId,
};
use container::Chore;
use migration::Drive;
use proposal::{Proposal, ProposeError, Waiter};
use sessions::{Reply, Sessions};

/// A job that ended without a change of the state is not begun again at once.
const PAUSE: Micros = 500 * MILLI;

#[derive(Debug)]
enum Work {
    Chore(Chore),
    Drive(Box<Drive>),
    Pause(Micros),
}

/// What jobs act with.
#[derive(Debug)]
pub struct Hands {
    pub sessions: Sessions,
    /// The member's clock.
    pub local: Micros,
    proposals: Vec<Proposal>,
    settled: Vec<(Job, Result<(), FailureKind>)>,
}

impl Hands {
    fn propose(&mut self, commands: Vec<Command>, waiter: Option<Waiter>) {
        self.proposals.push(Proposal { commands, waiter });
    }

    fn settle(&mut self, job: &Job, result: Result<(), FailureKind>) {
        self.settled.push((job.clone(), result));
    }
}

/// One lead of a member.
#[derive(Debug)]
pub struct Leader {
    pub term: u64,
    pub hands: Hands,
    jobs: BTreeMap<Job, Work>,
    /// The state whose due jobs were begun.
    looked: Option<Rc<State>>,
    waiters: BTreeMap<Job, Vec<u64>>,
}

impl Leader {
    pub fn begin(term: u64, local: Micros, state: &State) -> Self {
        let mut hands = Hands {
            sessions: Sessions::new(local),
            local,
            proposals: Vec::new(),
            settled: Vec::new(),
        };
        if state.cluster.is_empty() {
            let cluster = "sim".to_owned();
            hands.propose(vec![Command::Init { cluster }], None);
        }
        Self {
            term,
            hands,
            jobs: BTreeMap::new(),
            looked: None,
            waiters: BTreeMap::new(),
        }
    }

    /// A request waits for this job: to be called before the command that makes it due.
    pub fn wait(&mut self, job: Job, request: u64) {
        self.waiters.entry(job).or_default().push(request);
    }

    pub fn take_proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.hands.proposals)
    }

    pub fn propose(&mut self, commands: Vec<Command>, waiter: Option<Waiter>) {
        self.hands.propose(commands, waiter);
    }

    /// An agent's word.
    pub fn hear(&mut self, link: LinkId, message: FromAgent, state: &State, context: &mut Context) {
        let Some(host) = context.net.link(link).map(|link| link.host) else {
            return;
        };
        let host = crate::host_name(host);
        match message {
            FromAgent::Hello(name, instances) => self.hello(link, name, instances, state, context),
            FromAgent::Report(instances) => {
                if self.hands.sessions.heard(&host, link, self.hands.local) {
                    self.observe(&host, &instances, state);
                } else {
                    context.net.close_by_member(link);
                }
            }
            FromAgent::Answer(operation, answer) => {
                self.hands.sessions.complete(&host, operation, *answer);
                self.hands.sessions.heard(&host, link, self.hands.local);
            }
        }
    }

    fn hello(
        &mut self,
        link: LinkId,
        host: HostName,
        instances: Vec<InstanceReport>,
        state: &State,
        context: &mut Context,
    ) {
        let (address, underlay) = host_address(&host);
        let known = state.hosts.get(&host);
        if known.is_some_and(|known| known.address == address && known.underlay == underlay) {
            self.attach(link, &host, &instances, state, context);
            return;
        }
        let command = Command::HostSeen {
            name: host.clone(),
            address,
            underlay,
        };
        let waiter = Waiter::Hello(link, host, instances);
        self.hands.propose(vec![command], Some(waiter));
    }

    fn attach(
        &mut self,
        link: LinkId,
        host: &HostName,
        instances: &[InstanceReport],
        state: &State,
        context: &mut Context,
    ) {
        context.event(format_args!(
            "session {link} of {host} begins with {} instances",
            instances.len()
        ));
        context.tell_agent(link, ToAgent::Welcome);
        let awaited = self.awaited(host);
        let local = self.hands.local;
        self.hands
            .sessions
            .attach(host, link, &awaited, local, context);
        self.observe(host, instances, state);
    }

    fn observe(&mut self, host: &HostName, instances: &[InstanceReport], state: &State) {
        for command in news(state, host, instances) {
            self.hands.propose(vec![command], None);
        }
    }

    fn awaited(&self, host: &HostName) -> BTreeSet<OperationId> {
        let mut awaited = BTreeSet::new();
        for work in self.jobs.values() {
            let all = match work {
                Work::Chore(chore) => chore.awaits().into_iter().collect(),
                Work::Drive(drive) => drive.awaits(),
                Work::Pause(_) => Vec::new(),
            };
            let of_host = all.into_iter().filter(|(on, _)| *on == host);
            awaited.extend(of_host.map(|(_, operation)| operation.clone()));
        }
        awaited
    }

    /// What applying a proposal said.
    pub fn proposed(
        &mut self,
        waiter: Waiter,
        result: Result<(), ProposeError>,
        state: &State,
        context: &mut Context,
    ) {
        match waiter {
            Waiter::Hello(link, host, instances) => match result {
                Ok(()) => self.attach(link, &host, &instances, state, context),
                Err(_) => context.net.close_by_member(link),
            },
            Waiter::Job(job) => match self.jobs.get_mut(&job) {
                Some(Work::Chore(chore)) => chore.proposed(result),
                Some(Work::Drive(drive)) => drive.proposed(result),
                Some(Work::Pause(_)) | None => {}
            },
            Waiter::Request(_) => {}
        }
    }

    /// Does what can be done now. Answers the requests whose jobs have a result.
    pub fn poll(
        &mut self,
        state: &Rc<State>,
        local: Micros,
        context: &mut Context,
    ) -> Vec<(u64, Result<(), FailureKind>)> {
        self.hands.local = local;
        loop {
            let replies = std::mem::take(&mut self.hands.sessions.replies);
            let mut moved = !replies.is_empty();
            for (host, operation, reply) in replies {
                self.route(&host, &operation, &reply);
            }
            let looked = self.looked.as_ref();
            if looked.is_none_or(|looked| !Rc::ptr_eq(looked, state)) {
                self.looked = Some(state.clone());
                for job in due(state) {
                    self.begin_job(job, state, context);
                }
            }
            moved |= self.step(state, context);
            if !moved {
                break;
            }
        }
        let settled = std::mem::take(&mut self.hands.settled);
        let mut answers = Vec::new();
        for (job, result) in settled {
            for request in self.waiters.remove(&job).into_iter().flatten() {
                answers.push((request, result));
            }
        }
        answers
    }

    fn route(&mut self, host: &HostName, operation: &OperationId, reply: &Reply) {
        for work in self.jobs.values_mut() {
            match work {
                Work::Chore(chore) => chore.hear(host, operation, reply),
                Work::Drive(drive) => drive.hear(host, operation, reply),
                Work::Pause(_) => {}
            }
        }
    }

    fn begin_job(&mut self, job: Job, state: &State, context: &mut Context) {
        if self.jobs.contains_key(&job) {
            return;
        }
        let work = match &job {
            Job::Migrate(id) => match state.migrations.get(id) {
                Some(migration) => Work::Drive(Box::new(Drive::new(migration.clone()))),
                None => return,
            },
            _ => {
                let operation = OperationId::from_bytes(context.rng.bytes());
                Work::Chore(Chore::new(job.clone(), operation))
            }
        };
        self.jobs.insert(job, work);
    }

    fn step(&mut self, state: &State, context: &mut Context) -> bool {
        let mut moved = false;
        let mut jobs = std::mem::take(&mut self.jobs);
        let hands = &mut self.hands;
        jobs.retain(|job, work| {
            let over = match work {
                Work::Chore(chore) => {
                    moved |= chore.step(hands, state, context);
                    chore.is_over()
                }
                Work::Drive(drive) => {
                    moved |= drive.step(hands, state, context);
                    drive.is_over()
                }
                Work::Pause(until) => {
                    if hands.local < *until {
                        return true;
                    }
                    // What is still due is begun again.
                    self.looked = None;
                    moved = true;
                    return false;
                }
            };
            if over && due(state).contains(job) {
                *work = Work::Pause(hands.local + PAUSE);
                return true;
            }
            !over
        });
        self.jobs = jobs;
        moved
    }
}
