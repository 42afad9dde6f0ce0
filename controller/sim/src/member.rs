//! A member: raft's node with a disk of its own, the state machine, and the leader's work when it
//! leads. It follows the order of `controller`'s driver, step by step.

mod reshape;

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use godwit_core::{Command, State, apply};
use raft::{
    Config, RawNode, Ready, SnapshotStatus, StateRole,
    eraftpb::{Entry, EntryType, Message, MessageType, Snapshot},
};

use crate::{
    bug::Bug,
    client,
    context::Context,
    disk::Disk,
    event::{Event, FromAgent, MILLI, Micros},
    leader::{
        Leader,
        proposal::{Proposal, ProposeError, Waiter},
    },
    network::LinkId,
    rng::mix,
};

const TICK: Micros = 50 * MILLI;
const ELECTION_TICKS: usize = 15;
const HEARTBEAT_TICKS: usize = 2;

/// What comes from outside.
#[derive(Debug)]
pub enum Input {
    Tick,
    Message(Box<Message>),
    Unreachable(u64),
    Agent(LinkId, FromAgent),
    Request(u64),
    /// An admin wants another group; there are so many machines for members.
    Reshape(usize),
}

/// A Ready whose write is on its way to the disk.
struct Pending {
    ready: Ready,
    done: Vec<(Waiter, Result<(), ProposeError>)>,
    sync: bool,
}

/// What a crash takes away.
struct Process {
    node: RawNode<Disk>,
    state: Rc<State>,
    applied: u64,
    applied_term: u64,
    proposer: u64,
    sequence: u64,
    waiting: BTreeMap<u64, Waiter>,
    reads: BTreeMap<u64, u64>,
    leader: Option<Leader>,
    inbox: VecDeque<Input>,
    pending: Option<Pending>,
    ticks: u64,
    /// When each other member was heard last.
    heard: BTreeMap<u64, Micros>,
    /// Came while the lead is being handed over, when raft takes none.
    deferred: Vec<Proposal>,
}

pub struct Member {
    pub index: usize,
    disk: Disk,
    process: Option<Process>,
    /// Which incarnation this is.
    pub life: u64,
    pub disk_full: bool,
    /// It was taken out, and knows.
    pub retired: bool,
    founders: usize,
    snapshot_every: u64,
}

pub fn raft_id(index: usize) -> u64 {
    index as u64 + 1
}

impl Member {
    /// One of the founders, or a machine that may be added later.
    pub fn new(index: usize, founders: usize, snapshot_every: u64) -> Self {
        let voters: Vec<u64> = (0..founders).map(raft_id).collect();
        Self {
            index,
            disk: Disk::new(&voters),
            process: None,
            life: 0,
            disk_full: false,
            retired: false,
            founders,
            snapshot_every,
        }
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// This member leads, and has applied everything that was committed before it did.
    pub fn leads(&self) -> bool {
        self.process.as_ref().is_some_and(|p| p.leader.is_some())
    }

    /// The member that it takes for the leader.
    pub fn leader_hint(&self) -> Option<usize> {
        let leader = self.process.as_ref()?.node.raft.leader_id;
        (leader != raft::INVALID_ID).then(|| leader as usize - 1)
    }

    pub fn applied(&self) -> Option<u64> {
        self.process.as_ref().map(|p| p.applied)
    }

    pub fn state(&self) -> Option<&Rc<State>> {
        self.process.as_ref().map(|p| &p.state)
    }

    /// Starts it from what is on its disk.
    pub fn start(&mut self, context: &mut Context) {
        if self.retired {
            return;
        }
        self.disk.reload_conf();
        let (applied, state) = match self.disk.snapshot_state() {
            Some((index, json)) => match State::from_json(&json) {
                Ok(state) => (index, Rc::new(state)),
                Err(error) => {
                    context.broke("a snapshot can be read", error.to_string());
                    return;
                }
            },
            None => (0, Rc::new(State::default())),
        };
        self.life += 1;
        let config = Config {
            id: raft_id(self.index),
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 4 << 20,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = match RawNode::new(&config, self.disk.clone(), &logger) {
            Ok(node) => node,
            Err(error) => {
                context.broke("a member can start from its disk", error.to_string());
                return;
            }
        };
        self.process = Some(Process {
            node,
            state,
            applied,
            applied_term: 0,
            proposer: context.rng.next(),
            sequence: 0,
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            leader: None,
            inbox: VecDeque::new(),
            pending: None,
            ticks: 0,
            heard: BTreeMap::new(),
            deferred: Vec::new(),
        });
        context.event(format_args!(
            "member {} starts, applied {applied}",
            self.index
        ));
        let (member, life) = (self.index, self.life);
        context.after(TICK, Event::Tick { member, life });
        self.patience(context);
    }

    /// The process is gone, and what was not synced with it.
    pub fn crash(&mut self, context: &mut Context) {
        if self.process.take().is_none() {
            return;
        }
        self.disk.crash();
        self.life += 1;
        let index = self.index;
        context.net.close_all(|link| link.member == index, false);
        context.event(format_args!("member {index} crashes"));
    }

    /// raft draws its election time-outs from the machine's randomness: they are overwritten by
    /// our own, before any tick can read one.
    fn patience(&mut self, context: &Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let raft = &mut process.node.raft;
        let mixed = mix((context.ahead.len() as u64) << 60
            ^ raft.term << 32
            ^ (process.ticks / 64) << 8
            ^ raft.id
            ^ process.proposer);
        let span = ELECTION_TICKS as u64;
        raft.set_randomized_election_timeout(ELECTION_TICKS + (mixed % span) as usize);
    }

    pub fn tick(&mut self, context: &mut Context) {
        let (member, life) = (self.index, self.life);
        context.after(TICK, Event::Tick { member, life });
        self.input(Input::Tick, context);
    }

    pub fn input(&mut self, input: Input, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        // Ticks that were missed are not made up.
        let stale =
            matches!(input, Input::Tick) && process.inbox.iter().any(|i| matches!(i, Input::Tick));
        if !stale {
            process.inbox.push_back(input);
        }
        self.run(context);
    }

    /// The disk has it.
    pub fn synced(&mut self, context: &mut Context) {
        let Some(pending) = self.process.as_mut().and_then(|p| p.pending.take()) else {
            return;
        };
        if self.disk_full {
            context.event(format_args!("member {} can't write", self.index));
            self.crash(context);
            return;
        }
        self.finish(pending, context);
        self.run(context);
    }

    fn run(&mut self, context: &mut Context) {
        loop {
            if self.retired {
                self.crash(context);
                return;
            }
            let Some(process) = &mut self.process else {
                return;
            };
            if process.pending.is_some() || context.broken.is_some() {
                return;
            }
            if let Some(input) = process.inbox.pop_front() {
                self.take(input, context);
            } else if process.node.has_ready() {
                self.ready(context);
            } else {
                self.announce(context);
                if !self.lead(context) {
                    return;
                }
            }
            self.patience(context);
        }
    }

    fn take(&mut self, input: Input, context: &mut Context) {
        let local = context.local(self.index);
        let index = self.index;
        let Some(process) = &mut self.process else {
            return;
        };
        match input {
            Input::Tick => {
                process.ticks += 1;
                process.node.tick();
                if let Some(leader) = &mut process.leader {
                    leader.hands.sessions.sweep(local, context);
                }
                for proposal in std::mem::take(&mut process.deferred) {
                    self.propose(proposal, context);
                }
                self.turn(context);
            }
            Input::Message(message) => {
                process.heard.insert(message.from, context.now);
                // An error: raft refuses it, which is no news.
                let _ = process.node.step(*message);
            }
            Input::Unreachable(peer) => {
                process.node.report_unreachable(peer);
                process.node.report_snapshot(peer, SnapshotStatus::Failure);
            }
            Input::Agent(link, message) => match &mut process.leader {
                Some(leader) => {
                    leader.hands.local = local;
                    leader.hear(link, message, &process.state, context);
                }
                None => {
                    if matches!(message, FromAgent::Hello(..)) {
                        let hint = self.leader_hint().filter(|hint| *hint != index);
                        context.tell_agent(link, crate::event::ToAgent::NotLeader(hint));
                    }
                    context.net.close_by_member(link);
                }
            },
            Input::Reshape(machines) => self.reshape(machines, context),
            Input::Request(request) => {
                if process.leader.is_none() {
                    client::failed(context, request, "this member does not lead");
                } else if context.bug == Some(Bug::StaleRead) {
                    self.read_done(request, context);
                } else {
                    process.sequence += 1;
                    process.reads.insert(process.sequence, request);
                    let read = process.context(process.sequence);
                    process.node.read_index(read);
                }
            }
        }
    }

    /// The request sees everything that was committed before it came.
    fn read_done(&mut self, request: u64, context: &mut Context) {
        let local = context.local(self.index);
        let Some(process) = &mut self.process else {
            return;
        };
        let (state, applied) = (process.state.clone(), process.applied);
        let Some(leader) = &mut process.leader else {
            client::failed(context, request, "the lead was lost");
            return;
        };
        leader.hands.local = local;
        client::read(context, request, leader, &state, applied);
    }

    /// The leader's work. Answers whether anything came of it.
    fn lead(&mut self, context: &mut Context) -> bool {
        let local = context.local(self.index);
        let Some(process) = &mut self.process else {
            return false;
        };
        let Some(leader) = &mut process.leader else {
            return false;
        };
        for (request, result) in leader.poll(&process.state, local, context) {
            client::job_done(context, request, result, process.applied);
        }
        let proposals = leader.take_proposals();
        let moved = !proposals.is_empty();
        for proposal in proposals {
            self.propose(proposal, context);
        }
        moved
    }

    fn propose(&mut self, proposal: Proposal, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let raft = &process.node.raft;
        if raft.state == StateRole::Leader && raft.lead_transferee.is_some() {
            process.deferred.push(proposal);
            return;
        }
        let Proposal { commands, waiter } = proposal;
        let last = commands.len().saturating_sub(1);
        let mut waiter = waiter;
        for (at, command) in commands.iter().enumerate() {
            let data = serde_json::to_vec(command).expect("every key of a command is text");
            process.sequence += 1;
            let sequence = process.sequence;
            let proposed = process.node.propose(process.context(sequence), data);
            if at < last {
                continue;
            }
            let Some(waiter) = waiter.take() else {
                continue;
            };
            match proposed {
                Ok(()) => {
                    if let (Waiter::Request(request), Some(Bug::EarlyAnswer)) =
                        (&waiter, context.bug)
                    {
                        client::applied(context, *request, Ok(()), process.applied);
                    }
                    process.waiting.insert(sequence, waiter);
                }
                Err(_) => self.answer(waiter, Err(ProposeError::NotLeader), context),
            }
            return;
        }
    }

    fn answer(&mut self, waiter: Waiter, result: Result<(), ProposeError>, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        if let Waiter::Request(request) = waiter {
            client::applied(context, request, result, process.applied);
        } else if let Some(leader) = &mut process.leader {
            leader.proposed(waiter, result, &process.state, context);
        }
    }

    fn ready(&mut self, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        let mut ready = process.node.ready();
        let messages = ready.take_messages();
        self.send(messages, context);
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.install(&snapshot, context);
        }
        let mut done = Vec::new();
        let committed = ready.take_committed_entries();
        self.apply(committed, &mut done, context);
        let hard = ready.hs().cloned();
        let entries = ready.take_entries();
        let written = !entries.is_empty() || hard.is_some();
        if written {
            self.disk.save(&entries, hard.as_ref());
        }
        let sync = written && ready.must_sync();
        let pending = Pending { ready, done, sync };
        if !sync {
            self.finish(pending, context);
            return;
        }
        let took = if context.rng.chance(200) {
            context.rng.range(20 * MILLI, 200 * MILLI)
        } else {
            context.rng.range(200, 3000)
        };
        let (member, life) = (self.index, self.life);
        context.after(took, Event::Synced { member, life });
        if let Some(process) = &mut self.process {
            process.pending = Some(pending);
        }
    }

    fn finish(&mut self, pending: Pending, context: &mut Context) {
        let Pending {
            mut ready,
            mut done,
            sync,
        } = pending;
        if sync && context.bug != Some(Bug::NeverSynced) {
            self.disk.sync();
        }
        let persisted = ready.take_persisted_messages();
        let reads = ready.take_read_states();
        self.send(persisted, context);
        let Some(process) = &mut self.process else {
            return;
        };
        let mut light = process.node.advance(ready);
        let messages = light.take_messages();
        let committed = light.take_committed_entries();
        self.send(messages, context);
        self.apply(committed, &mut done, context);
        if let Some(process) = &mut self.process {
            process.node.advance_apply();
        }
        for (waiter, result) in done {
            self.answer(waiter, result, context);
        }
        for read in reads {
            let Some(process) = &mut self.process else {
                return;
            };
            let sequence = process.sequence_of(&read.request_ctx);
            let request = sequence.and_then(|s| process.reads.remove(&s));
            let Some(request) = request else { continue };
            if read.index <= process.applied {
                self.read_done(request, context);
            } else {
                client::failed(context, request, "the read was lost");
            }
        }
        self.compact(context);
    }

    fn compact(&mut self, context: &mut Context) {
        let Some(process) = &self.process else { return };
        let wanted = self.disk.take_wanted();
        if wanted || process.applied >= self.disk.snapshot_index() + self.snapshot_every {
            let applied = process.applied;
            let state = process.state.to_json();
            self.disk.compact(applied, state, self.snapshot_every / 2);
            context.event(format_args!(
                "member {} takes a snapshot at {applied}",
                self.index
            ));
        }
    }

    fn send(&mut self, messages: Vec<Message>, context: &mut Context) {
        let Some(process) = &mut self.process else {
            return;
        };
        for message in messages {
            let to = message.to as usize - 1;
            let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            if snapshot {
                // As soon as it is queued.
                process
                    .node
                    .report_snapshot(message.to, SnapshotStatus::Finish);
            }
            let copies = context
                .net
                .send(self.index, to, context.now, &mut context.rng);
            if copies.is_empty() && context.rng.chance(3000) {
                let (member, peer) = (self.index, message.to);
                context.after(MILLI, Event::Unreachable { member, peer });
            }
            for at in copies {
                let message = Box::new(message.clone());
                context.queue.put(at, Event::Raft { to, message });
            }
        }
    }

    fn install(&mut self, snapshot: &Snapshot, context: &mut Context) {
        let meta = snapshot.get_metadata();
        let Some(process) = &mut self.process else {
            return;
        };
        match State::from_json(snapshot.get_data()) {
            Ok(state) => {
                let same = context.truth.installed(meta.index, &state);
                context.require("every member has the same state", same);
                process.state = Rc::new(state);
            }
            Err(error) => context.broke("a snapshot can be read", error.to_string()),
        }
        self.disk.install(snapshot);
        (process.applied, process.applied_term) = (meta.index, meta.term);
        context.event(format_args!(
            "member {} installs a snapshot at {}",
            self.index, meta.index
        ));
    }

    fn apply(
        &mut self,
        entries: Vec<Entry>,
        done: &mut Vec<(Waiter, Result<(), ProposeError>)>,
        context: &mut Context,
    ) {
        let Some(process) = &mut self.process else {
            return;
        };
        for entry in entries {
            process.applied = entry.index;
            process.applied_term = entry.term;
            let result = if entry.get_entry_type() != EntryType::EntryNormal {
                if let Err(error) = process.apply_change(&entry, &self.disk) {
                    context.broke("a change of the group can be read", error);
                }
                Ok(())
            } else if entry.data.is_empty() {
                Ok(())
            } else {
                let command: Command =
                    serde_json::from_slice(&entry.data).expect("this build wrote it");
                if context.truth.last() < entry.index {
                    let (index, term) = (entry.index, entry.term);
                    context.event(format_args!("apply {index} of term {term}: {command:?}"));
                }
                apply(Rc::make_mut(&mut process.state), &command).map(drop)
            };
            let same = context
                .truth
                .applied(entry.index, entry.term, &entry.data, &process.state);
            context.require("every member has the same state", same);
            let sequence = process.sequence_of(&entry.context);
            if let Some(waiter) = sequence.and_then(|s| process.waiting.remove(&s)) {
                done.push((waiter, result.map_err(ProposeError::Refused)));
            }
        }
        let own = raft_id(self.index);
        let gone = process.state.members.gone.contains_key(&own);
        self.retired |= gone && !self.disk.ids().contains(&own);
    }

    /// Begins and ends leads as raft says.
    fn announce(&mut self, context: &mut Context) {
        let local = context.local(self.index);
        let index = self.index;
        let Some(process) = &mut self.process else {
            return;
        };
        let raft = &process.node.raft;
        let (term, lead) = (raft.term, raft.state == StateRole::Leader);
        let leading = lead && process.applied_term == term;
        let held = process.leader.as_ref().map(|leader| leader.term);
        if held.is_some_and(|held| !leading || held != term) {
            process.leader = None;
            context.net.close_all(|link| link.member == index, false);
            context.event(format_args!("member {index} leads no more"));
        }
        if !lead {
            let lost = std::mem::take(&mut process.waiting).into_values();
            let deferred = std::mem::take(&mut process.deferred);
            let lost = lost.chain(deferred.into_iter().filter_map(|p| p.waiter));
            let reads = std::mem::take(&mut process.reads);
            for waiter in lost {
                if let Waiter::Request(request) = waiter {
                    client::applied(context, request, Err(ProposeError::Lost), 0);
                }
            }
            for request in reads.into_values() {
                client::failed(context, request, "the lead was lost");
            }
        }
        if leading && held != Some(term) {
            context.event(format_args!("member {index} leads in term {term}"));
            let leader = Leader::begin(term, local, &process.state);
            process.leader = Some(leader);
        }
    }
}

impl Process {
    fn context(&self, sequence: u64) -> Vec<u8> {
        let mut context = self.proposer.to_le_bytes().to_vec();
        context.extend(sequence.to_le_bytes());
        context
    }

    fn sequence_of(&self, context: &[u8]) -> Option<u64> {
        let (proposer, sequence) = context.split_at_checked(8)?;
        (proposer == self.proposer.to_le_bytes())
            .then(|| sequence.get(..8)?.try_into().ok().map(u64::from_le_bytes))?
    }
}
