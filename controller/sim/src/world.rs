//! Everything together: takes the next event, does it, and looks whether every rule still holds.

use std::collections::BTreeMap;

use godwit_types::{CommandFailure, ContainerId, FailureKind, Status, Verb};

use crate::{
    HOSTS,
    agent::{Agent, Work, runtime::Doing},
    bug::Bug,
    client,
    context::Context,
    event::{Event, MILLI, Micros, Queue, SECOND},
    faults::{self, Climate, Fault},
    host_index, host_name,
    member::{Input, Member},
    network::{Network, Node},
    rng::Rng,
    settled,
    trace::Trace,
    truth::Truth,
};

/// How long everything may take to settle once nothing goes wrong any more.
const SETTLES: Micros = 120 * SECOND;
const SETTLE_TICK: Micros = 250 * MILLI;

/// See the module.
pub struct World {
    pub context: Context,
    pub members: Vec<Member>,
    pub agents: Vec<Agent>,
    climate: Climate,
    /// Until when a machine does nothing.
    paused: Vec<Micros>,
    /// The furthest that any copy of a container has come: what its clients may have seen.
    seen: BTreeMap<ContainerId, u64>,
    /// An instance has changed since the rules were looked at.
    moved: bool,
    healed: bool,
    settled: bool,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, print: bool) -> Self {
        let mut rng = Rng::new(seed);
        let climate = Climate::new(&mut rng);
        let machines = climate.members + HOSTS;
        let members = (0..climate.members)
            .map(|index| Member::new(index, climate.founders, climate.snapshot_every))
            .collect();
        let agents = (0..HOSTS)
            .map(|index| Agent::new(index, climate.members, climate.failing))
            .collect();
        let context = Context {
            now: 0,
            queue: Queue::default(),
            rng,
            net: Network::new(climate.members, climate.weather),
            trace: Trace::new(print),
            truth: Truth::default(),
            clients: Default::default(),
            bug,
            ahead: vec![0; machines],
            broken: None,
        };
        Self {
            context,
            members,
            agents,
            climate,
            paused: vec![0; machines],
            seen: BTreeMap::new(),
            moved: false,
            healed: false,
            settled: false,
        }
    }

    /// Runs until everything has settled, or a rule is broken.
    pub fn run(&mut self) {
        let (context, climate) = (&mut self.context, &self.climate);
        context.event(format_args!("{climate:?}"));
        for member in &mut self.members {
            member.start(context);
        }
        for agent in &mut self.agents {
            agent.start(context);
        }
        context.after(2 * SECOND, Event::Ask);
        context.after(3 * SECOND, Event::Strike);
        if climate.members > climate.founders {
            context.after(2 * SECOND, Event::Reshape);
        }
        context.after(3 * SECOND + climate.lasts, Event::Settle);
        while !self.settled && self.context.broken.is_none() {
            let Some((at, event)) = self.context.queue.take() else {
                self.context
                    .broke("time goes on", "nothing waits for it".to_owned());
                return;
            };
            if let Some(until) = self.node(&event).map(|node| self.paused[node])
                && until > at
            {
                self.context.queue.put(until, event);
                continue;
            }
            self.context.now = at;
            self.handle(event);
            self.check();
        }
        let state = self.context.truth.state().to_json();
        let text = String::from_utf8_lossy(&state).into_owned();
        self.context.event(format_args!("end: {text}"));
    }

    /// The machine that has to do with this event, if it is one's.
    fn node(&self, event: &Event) -> Option<Node> {
        let hosts = self.members.len();
        match event {
            Event::Tick { member, .. }
            | Event::Synced { member, .. }
            | Event::Unreachable { member, .. }
            | Event::Request { member, .. } => Some(*member),
            Event::Raft { to, .. } => Some(*to),
            Event::ToMember { link, .. } => self.context.net.link(*link).map(|l| l.member),
            Event::ToAgent { link, .. } => self.context.net.link(*link).map(|l| hosts + l.host),
            Event::AgentTick { host, .. }
            | Event::Finished { host, .. }
            | Event::Stored { host, .. }
            | Event::Effect { host, .. } => Some(hosts + host),
            Event::Exits { .. }
            | Event::Ask
            | Event::Reshape
            | Event::Fault(_)
            | Event::Strike
            | Event::Settle => None,
        }
    }

    fn handle(&mut self, event: Event) {
        let context = &mut self.context;
        let now = context.now;
        match event {
            Event::Tick { member, life } => {
                if self.members[member].life == life {
                    context.trace.quiet(&[now, member as u64]);
                    self.members[member].tick(context);
                }
            }
            Event::Raft { to, message } => {
                let kind = message.get_msg_type() as u64;
                let numbers = [now, to as u64, kind, message.term, message.index];
                context.trace.quiet(&numbers);
                let from = message.from as usize - 1;
                // Lost when the way was cut meanwhile.
                if !context.net.reaches(from, to) {
                    return;
                }
                if self.members[to].refuses(message.from) {
                    if context.net.reaches(to, from) {
                        self.members[from].retire(context);
                    }
                    return;
                }
                self.members[to].input(Input::Message(message), context);
            }
            Event::Unreachable { member, peer } => {
                self.members[member].input(Input::Unreachable(peer), context);
            }
            Event::Synced { member, life } => {
                if self.members[member].life == life {
                    context.trace.quiet(&[now, member as u64, life]);
                    self.members[member].synced(context);
                }
            }
            Event::ToMember { link, message } => {
                let Some(found) = context.net.link(link) else {
                    return;
                };
                let member = found.member;
                let gone = found.closed_by_member || found.closed_by_agent;
                if found.member_life == self.members[member].life && !gone {
                    context.trace.quiet(&[now, link]);
                    self.members[member].input(Input::Agent(link, message), context);
                }
            }
            Event::ToAgent { link, message } => {
                let Some(found) = context.net.link(link) else {
                    return;
                };
                let host = found.host;
                if found.agent_life == self.agents[host].life && !found.closed_by_agent {
                    context.trace.quiet(&[now, link]);
                    self.agents[host].receive(link, message, context);
                }
            }
            Event::AgentTick { host, life } => {
                if self.agents[host].life == life {
                    let lives: Vec<_> = self
                        .members
                        .iter()
                        .map(|member| member.is_up().then_some(member.life))
                        .collect();
                    self.agents[host].tick(&lives, context);
                    self.moved |= context.bug == Some(Bug::ThawOnSilence);
                }
            }
            Event::Effect {
                host,
                container,
                work,
            } => self.effect(host, container, work),
            Event::Finished {
                host,
                life,
                container,
                work,
                answer,
            } => {
                if self.agents[host].life == life {
                    self.agents[host].finished(&container, work, *answer, context);
                }
            }
            Event::Stored {
                host,
                life,
                container,
            } => {
                if self.agents[host].life == life {
                    self.agents[host].stored(&container, context);
                }
            }
            Event::Exits { host, container } => {
                watch_output(&mut self.seen, &self.agents, context);
                if self.agents[host].runtime.exit(&container, now) {
                    context.event(format_args!("{} ends on host {host}", container.short()));
                    self.moved = true;
                }
            }
            Event::Request { member, request } => {
                // Passed on to the leader by the member that got it, when it knows one.
                let to = match self.members[member].leader_hint() {
                    Some(hint) if hint != member && !self.members[member].leads() => hint,
                    _ => member,
                };
                let reached = to == member
                    || (context.net.reaches(member, to) && context.net.reaches(to, member));
                if reached && self.members[to].is_up() {
                    self.members[to].input(Input::Request(request), context);
                } else {
                    client::failed(context, request, "no leader in reach");
                }
            }
            Event::Ask => {
                if !self.healed {
                    client::ask(context, self.members.len());
                    let pause = context.rng.range(20 * MILLI, 900 * MILLI);
                    context.after(pause, Event::Ask);
                }
            }
            Event::Reshape => {
                if !self.healed {
                    let machines = self.members.len();
                    let mut leads = self.members.iter_mut().filter(|member| member.leads());
                    if let Some(member) = leads.next() {
                        member.input(Input::Reshape(machines), context);
                    }
                    let pause = context.rng.range(300 * MILLI, 4 * SECOND);
                    context.after(pause, Event::Reshape);
                }
            }
            Event::Strike => {
                if !self.healed {
                    let running = self.running();
                    let context = &mut self.context;
                    faults::strike(context, self.members.len(), &running);
                    let pause = context.rng.range(10 * MILLI, self.climate.pause);
                    context.after(pause, Event::Strike);
                }
            }
            Event::Fault(fault) => self.fault(fault),
            Event::Settle => self.settle(),
        }
    }

    fn running(&self) -> Vec<(usize, ContainerId)> {
        let mut running = Vec::new();
        for agent in &self.agents {
            for (id, instance) in &agent.runtime.instances {
                if matches!(instance.doing, Doing::Running { .. }) {
                    running.push((agent.index, id.clone()));
                }
            }
        }
        running
    }

    fn effect(&mut self, host: usize, container: ContainerId, number: u64) {
        let Some(work) = self.agents[host].take_work(number) else {
            return;
        };
        let context = &mut self.context;
        watch_output(&mut self.seen, &self.agents, context);
        let verb = &work.command.verb;
        let failure = self.agents[host].fails(verb, context);
        let answer = match (failure, verb) {
            (Some(failure), _) => self.agents[host].runtime.fail(verb, failure),
            (None, Verb::Transfer { .. }) => self.transfer(host, &work),
            (None, _) => {
                let now = context.now;
                self.agents[host].runtime.perform(verb, work.arrived, now)
            }
        };
        let context = &mut self.context;
        let good = match &answer {
            Ok(_) => "done".to_owned(),
            Err(failure) => failure.message.clone(),
        };
        context.event(format_args!(
            "host {host}: {} {}: {good}",
            verb.name(),
            container.short()
        ));
        self.moved = true;
        let delay = context.rng.range(10, 2000);
        let finished = Event::Finished {
            host,
            life: work.life,
            container,
            work: number,
            answer: Box::new(answer),
        };
        context.after(delay, finished);
    }

    /// Agent to agent: everything arrives, or nothing does.
    fn transfer(&mut self, host: usize, work: &Work) -> godwit_agent::ledger::Answer {
        let Verb::Transfer {
            migration,
            container,
            generation,
            to,
            ..
        } = &work.command.verb
        else {
            return Ok(godwit_types::Outcome::Done);
        };
        let failed = |kind, text: &str| Err(CommandFailure::new(kind, text));
        let Some(instance) = self.agents[host].runtime.instances.get(container) else {
            return failed(FailureKind::NotFound, "no such instance");
        };
        if instance.doing != Doing::Frozen(migration.clone()) {
            return failed(FailureKind::WrongState, "it is not frozen");
        }
        let output = instance.output(self.context.now);
        let to = host_index(to);
        let (here, there) = (self.context.net.host(host), self.context.net.host(to));
        let net = &self.context.net;
        let reached = net.reaches(here, there)
            && net.reaches(there, here)
            && self.paused[there] <= self.context.now;
        if reached && self.agents[to].arrives(container, migration, generation.next(), output) {
            Ok(godwit_types::Outcome::Transferred {
                bytes: 1,
                steps: Vec::new(),
            })
        } else {
            failed(FailureKind::Peer, "the destination could not be reached")
        }
    }

    fn fault(&mut self, fault: Fault) {
        let context = &mut self.context;
        let members = self.members.len();
        if self.healed {
            return;
        }
        context.event(format_args!("fault: {fault:?}"));
        match fault {
            Fault::CrashMember(member) => self.members[member].crash(context),
            Fault::StartMember(member) => {
                if !self.members[member].is_up() {
                    self.members[member].start(context);
                }
            }
            Fault::CrashAgent(host) => self.agents[host].crash(context),
            Fault::StartAgent(host) => {
                if !self.agents[host].is_up() {
                    self.agents[host].start(context);
                }
            }
            Fault::Cut(pairs) => {
                for (from, to) in pairs {
                    context.net.block(from, to);
                }
                let now = context.now;
                context.net.break_blocked(now);
            }
            Fault::Mend(pairs) => {
                for (from, to) in pairs {
                    context.net.unblock(from, to);
                }
            }
            Fault::Jump(node, by) => context.ahead[node] += by,
            Fault::Pause(node, lasts) => {
                // One that ended another early would let later messages overtake.
                self.paused[node] = self.paused[node].max(context.now + lasts);
            }
            Fault::DiskFull(node) if node < members => self.members[node].disk_full = true,
            Fault::DiskFull(node) => self.agents[node - members].disk_full = true,
            Fault::DiskFree(node) if node < members => {
                self.members[node].disk_full = false;
                // It stopped when it could not write, and is started again.
                if !self.members[node].is_up() {
                    self.members[node].start(context);
                }
            }
            Fault::DiskFree(node) => self.agents[node - members].disk_full = false,
            Fault::Exit(host, container) => {
                context.after(0, Event::Exits { host, container });
            }
        }
    }

    /// Nothing goes wrong any more: then everything must come to rest.
    fn settle(&mut self) {
        if !self.healed {
            self.healed = true;
            let context = &mut self.context;
            context.event(format_args!("everything is mended"));
            context.net.heal();
            for member in &mut self.members {
                member.disk_full = false;
                if !member.is_up() {
                    member.start(context);
                }
            }
            for agent in &mut self.agents {
                agent.disk_full = false;
                agent.failing = 0;
                if !agent.is_up() {
                    agent.start(context);
                }
            }
        }
        let limit = 3 * SECOND + self.climate.lasts + SETTLES;
        match settled::look(&self.context.truth, &self.members, &self.agents) {
            Ok(()) => self.settled = true,
            Err(unsettled) if self.context.now > limit => {
                self.context.broke("everything settles", unsettled);
            }
            Err(_) => self.context.after(SETTLE_TICK, Event::Settle),
        }
    }

    fn check(&mut self) {
        let news = std::mem::take(&mut self.context.truth.news);
        if !news && !std::mem::take(&mut self.moved) {
            return;
        }
        self.moved = false;
        watch_output(&mut self.seen, &self.agents, &mut self.context);
        let state = self.context.truth.state().clone();
        if news {
            let kept = self.context.clients.check(&state);
            self.context
                .require("what was acknowledged is not lost", kept);
        }
        for container in state.containers.values() {
            let id = &container.id;
            let running = self.agents.iter().filter(|agent| {
                let instance = agent.runtime.instances.get(id);
                instance.is_some_and(|i| matches!(i.doing, Doing::Running { .. }))
            });
            if running.count() > 1 {
                let what = format!("{} runs twice", id.short());
                self.context.broke("one copy runs at most", what);
            }
            let must = match &container.status {
                Status::Running
                | Status::Paused
                | Status::Restarting { .. }
                | Status::Exited { .. } => true,
                Status::Failed { reason } => {
                    let what = format!("{} was given up: {reason}", id.short());
                    self.context.broke("no container is given up", what);
                    false
                }
                Status::Creating | Status::Created | Status::Starting { .. } | Status::Removing => {
                    false
                }
            };
            let owner = &self.agents[host_index(&container.host)];
            let copy = owner.runtime.instances.get(id);
            if must && !copy.is_some_and(|copy| copy.is_recoverable()) {
                let what = format!(
                    "{} belongs to {} by {}, which has {:?} of it",
                    id.short(),
                    host_name(owner.index),
                    container.generation,
                    copy.map(|copy| &copy.doing)
                );
                self.context.broke("one copy is always recoverable", what);
            }
        }
    }
}

/// What runs has said something: the copy that runs after it must know it.
fn watch_output(seen: &mut BTreeMap<ContainerId, u64>, agents: &[Agent], context: &mut Context) {
    for agent in agents {
        for (id, instance) in &agent.runtime.instances {
            if !matches!(instance.doing, Doing::Running { .. }) {
                continue;
            }
            let output = instance.output(context.now);
            let furthest = seen.entry(id.clone()).or_default();
            if output < *furthest {
                let what = format!(
                    "{} is at {output} on {} and was at {furthest}",
                    id.short(),
                    host_name(agent.index)
                );
                context.broke("output never goes back", what);
            }
            *furthest = output.max(*furthest);
        }
    }
}
