//! The thread that owns the `RawNode`. It does what the manual of raft-rs says, in its order:
//! messages of a leader go out first, then the snapshot, committed entries, the disk, and last
//! what may only be said once it is on the disk.
//!
//! All that waits in the queue is taken before a `Ready` is made, so that many proposals share
//! one fsync.

mod change;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use godwit_core::{Applied, Command, State, apply};
use godwit_types::Refusal;
use protobuf::Message as _;
use raft::{
    RawNode, SnapshotStatus, StateRole,
    eraftpb::{ConfChangeV2, ConfState, Entry, EntryType, Message, MessageType, Snapshot},
};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info, warn};

use super::{
    ProposeError,
    store::{Store, StoreError},
    transport::{Outbox, Peer, Standing},
};

pub const TICK: Duration = Duration::from_millis(50);
/// How many inputs are taken before what they led to is done.
const BATCH: usize = 512;
/// A member that was heard this recently is reachable.
const REACHABLE: Duration = Duration::from_millis(1500);
/// How long a stopping leader waits for its successor.
const HANDOVER: Duration = Duration::from_millis(1200);
/// Entries kept behind a snapshot, for followers that are a little late.
const KEEP: u64 = 1000;
/// Proposals that wait for the end of a hand-over, at most.
const DEFERRED: usize = 4096;
/// Bytes of commands after which a snapshot is taken, however few they are.
const LOG_BYTES: usize = 16 << 20;

pub type Answer = oneshot::Sender<Result<Applied, ProposeError>>;

pub enum Input {
    Message(Box<Message>),
    /// In this order and in one write; the answer is the last one's.
    Propose {
        commands: Vec<Vec<u8>>,
        answer: Option<Answer>,
    },
    /// Answered when everything committed before is applied here.
    Read(oneshot::Sender<Result<(), ProposeError>>),
    /// A change of the configuration, and the command that is applied with it.
    Change {
        change: ConfChangeV2,
        command: Vec<u8>,
        answer: Answer,
    },
    /// Hand the lead to this voter. Answered when that has begun.
    Transfer {
        to: u64,
        answer: oneshot::Sender<Result<(), TransferError>>,
    },
    /// What another member says its log is. Answered with why that can't be.
    Hello {
        peer: Peer,
        last: u64,
        answer: oneshot::Sender<Option<String>>,
    },
    Unreachable(u64),
    /// A snapshot has arrived there, or has not.
    Delivered {
        peer: u64,
        whole: bool,
    },
    /// Another member won't hear us any more.
    Refused(Refused),
    Status(oneshot::Sender<RaftStatus>),
    /// `transfer`: hand the lead over first.
    Stop {
        transfer: bool,
    },
}

/// Why another member won't hear us.
pub struct Refused {
    pub peer: u64,
    pub reason: String,
    /// Its word is enough: we were removed, or our log is older than what we have promised.
    /// Otherwise it takes us for one of another group, and one of the two is wrong.
    pub known: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this member does not lead")]
    NotLeader,
    #[error("it has no vote")]
    NoVote,
    #[error("it is down")]
    Down,
}

/// The way into the thread: bounded, and nobody waits.
#[derive(Clone)]
pub struct Inputs(pub SyncSender<Input>);

impl Inputs {
    /// False: the queue is full or the thread is gone.
    pub fn send(&self, input: Input) -> bool {
        self.0.try_send(input).is_ok()
    }
}

/// The applied state. A new one for every batch of entries.
#[derive(Clone)]
pub struct Published {
    pub state: Arc<State>,
    pub applied: u64,
    /// Who takes part in any way, as of there.
    pub ids: Arc<BTreeSet<u64>>,
}

/// Who leads, as far as this member knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<u64>,
    /// This member leads, and has applied everything that was committed before it did.
    pub leading: bool,
}

#[derive(Debug, Clone)]
pub struct RaftStatus {
    pub term: u64,
    pub leader: Option<u64>,
    pub applied: u64,
    /// The last entry that is committed.
    pub commit: u64,
    pub conf: ConfState,
    /// By Raft id: whether it is reachable and up to which entry it has the log.
    pub members: BTreeMap<u64, (bool, u64)>,
}

/// What the thread is told when it starts.
pub struct Settings {
    /// Tells our proposals from those of others, and of our former life.
    pub proposer: u64,
    /// A snapshot after this many entries.
    pub snapshot_every: u64,
    /// The members that the configuration names, for as long as the state names none.
    pub configured: Vec<Peer>,
    pub standing: watch::Sender<Standing>,
    /// Why the thread has ended, if it was not told to.
    pub ended: watch::Sender<Option<String>>,
}

pub struct Driver {
    node: RawNode<Store>,
    inputs: Receiver<Input>,
    outbox: Outbox,
    published: watch::Sender<Published>,
    leadership: watch::Sender<Leadership>,
    state: Arc<State>,
    applied: u64,
    applied_term: u64,
    /// Of commands applied since the last snapshot.
    log_bytes: usize,
    ids: Arc<BTreeSet<u64>>,
    settings: Settings,
    sequence: u64,
    waiting: HashMap<u64, Answer>,
    /// Came while the lead is being handed over, when raft takes none.
    deferred: VecDeque<(Vec<u8>, Option<Answer>)>,
    reads: BTreeMap<u64, oneshot::Sender<Result<(), ProposeError>>>,
    heard: BTreeMap<u64, Instant>,
    /// Members that we know from themselves alone.
    met: BTreeMap<u64, Peer>,
    /// Those that take us for one of another group.
    strangers: BTreeSet<u64>,
    /// Why this member takes part no more.
    over: Option<String>,
}

type Done = Vec<(Answer, Result<Applied, ProposeError>)>;

impl Driver {
    pub fn new(
        node: RawNode<Store>,
        inputs: Receiver<Input>,
        outbox: Outbox,
        published: watch::Sender<Published>,
        leadership: watch::Sender<Leadership>,
        settings: Settings,
    ) -> Self {
        let Published {
            state,
            applied,
            ids,
        } = published.borrow().clone();
        let mut driver = Self {
            node,
            inputs,
            outbox,
            published,
            leadership,
            state,
            applied,
            applied_term: 0,
            log_bytes: 0,
            ids,
            settings,
            sequence: 0,
            waiting: HashMap::new(),
            deferred: VecDeque::new(),
            reads: BTreeMap::new(),
            heard: BTreeMap::new(),
            met: BTreeMap::new(),
            strangers: BTreeSet::new(),
            over: None,
        };
        driver.stand();
        driver.know_peers();
        driver
    }

    /// Runs until it is told to stop, may not take part any more, or the disk fails.
    pub fn run(mut self) {
        let reason = match self.turn() {
            Ok(()) => self.over.take(),
            // Without its disk a member can't keep a promise: it says nothing any more.
            Err(failure) => {
                let chain = godwit_proto::failure::chain(&failure);
                Some(if failure.is_full() {
                    format!(
                        "the disk under the log is full; the others go on, and this member does \
                         when it is started with room there: {chain}"
                    )
                } else {
                    format!("the log can't be written or read: {chain}")
                })
            }
        };
        if let Some(reason) = reason {
            error!(reason, "this member stops");
            self.settings.ended.send_replace(Some(reason));
        }
        self.leadership.send_replace(Leadership::default());
        self.fail_all(|| ProposeError::Stopped);
    }

    fn turn(&mut self) -> Result<(), StoreError> {
        let mut next_tick = Instant::now() + TICK;
        let mut stop_at: Option<Instant> = None;
        if self.node.store().conf().get_voters() == [self.node.raft.id] {
            // Nobody else could be elected: why wait.
            self.log_raft("campaign", |node| node.campaign());
        }
        loop {
            let wait = next_tick.saturating_duration_since(Instant::now());
            let mut first = match self.inputs.recv_timeout(wait) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for _ in 0..BATCH {
                let Some(input) = first.take().or_else(|| self.inputs.try_recv().ok()) else {
                    break;
                };
                match input {
                    Input::Stop { transfer } => {
                        if !(transfer && self.hand_over()) {
                            return Ok(());
                        }
                        stop_at = Some(Instant::now() + HANDOVER);
                    }
                    other => self.take(other)?,
                }
            }
            let now = Instant::now();
            if now >= next_tick {
                self.node.tick();
                // Ticks that were missed are not made up: a late disk is no reason to vote.
                next_tick = now + TICK;
            }
            self.resume();
            while self.node.has_ready() {
                self.ready()?;
            }
            self.announce();
            if self.over.is_some() {
                return Ok(());
            }
            if let Some(at) = stop_at {
                let lead = self.node.raft.state == StateRole::Leader;
                if !lead || Instant::now() >= at {
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), StoreError> {
        match input {
            Input::Message(message) => {
                if self.knows_more_of_us(&message)? {
                    return Ok(());
                }
                self.heard.insert(message.from, Instant::now());
                self.log_raft("step", |node| node.step(*message));
            }
            Input::Propose {
                mut commands,
                answer,
            } => {
                let last = commands.pop();
                for command in commands {
                    self.propose(command, None);
                }
                if let Some(command) = last {
                    self.propose(command, answer);
                }
            }
            Input::Read(answer) => {
                if self.leadership.borrow().leading {
                    self.sequence += 1;
                    self.reads.insert(self.sequence, answer);
                    let context = self.context(self.sequence);
                    self.node.read_index(context);
                } else {
                    let _ = answer.send(Err(ProposeError::NotLeader));
                }
            }
            Input::Change {
                change,
                command,
                answer,
            } => self.propose_change(&change, command, answer),
            Input::Transfer { to, answer } => drop(answer.send(self.transfer(to))),
            Input::Hello { peer, last, answer } => drop(answer.send(self.meet(peer, last))),
            Input::Unreachable(peer) => self.node.report_unreachable(peer),
            Input::Delivered { peer, whole } => {
                let status = if whole {
                    SnapshotStatus::Finish
                } else {
                    SnapshotStatus::Failure
                };
                self.node.report_snapshot(peer, status);
            }
            Input::Refused(refused) => self.refused(refused)?,
            Input::Status(answer) => drop(answer.send(self.status())),
            Input::Stop { .. } => {}
        }
        Ok(())
    }

    fn context(&self, sequence: u64) -> Vec<u8> {
        let mut context = self.settings.proposer.to_le_bytes().to_vec();
        context.extend(sequence.to_le_bytes());
        context
    }

    fn sequence_of(&self, context: &[u8]) -> Option<u64> {
        let (proposer, sequence) = context.split_at_checked(8)?;
        (proposer == self.settings.proposer.to_le_bytes())
            .then(|| sequence.get(..8)?.try_into().ok().map(u64::from_le_bytes))?
    }

    fn propose(&mut self, command: Vec<u8>, answer: Option<Answer>) {
        if self.handing_over() && self.deferred.len() < DEFERRED {
            self.deferred.push_back((command, answer));
            return;
        }
        self.sequence += 1;
        let context = self.context(self.sequence);
        // raft would pass a follower's proposal on; then nobody could answer it.
        let result = if self.node.raft.state == StateRole::Leader {
            self.node.propose(context, command)
        } else {
            Err(raft::Error::ProposalDropped)
        };
        match (result, answer) {
            (Ok(()), Some(answer)) => drop(self.waiting.insert(self.sequence, answer)),
            (Ok(()), None) => {}
            (Err(reason), answer) => {
                debug!(%reason, "proposal dropped");
                if let Some(answer) = answer {
                    let _ = answer.send(Err(ProposeError::NotLeader));
                }
            }
        }
    }

    fn handing_over(&self) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader && raft.lead_transferee.is_some()
    }

    /// What waited for the end of a hand-over goes on here, or is told that another leads.
    fn resume(&mut self) {
        if !self.handing_over() {
            for (command, answer) in std::mem::take(&mut self.deferred) {
                self.propose(command, answer);
            }
        }
    }

    fn ready(&mut self) -> Result<(), StoreError> {
        let mut ready = self.node.ready();
        let mut done = Done::new();
        self.send(ready.take_messages());
        if !ready.snapshot().is_empty() {
            let snapshot = ready.snapshot().clone();
            self.install(&snapshot)?;
        }
        let committed = ready.take_committed_entries();
        self.apply(committed, &mut done)?;
        let hard = ready.hs().cloned();
        let sync = ready.must_sync();
        let entries = ready.take_entries();
        self.node.mut_store().save(&entries, hard.as_ref(), sync)?;
        let group = &self.state.members.group;
        if !group.is_empty() {
            self.node.mut_store().set_group(group)?;
        }
        self.stand();
        self.send(ready.take_persisted_messages());
        let reads = ready.take_read_states();
        let mut light = self.node.advance(ready);
        self.send(light.take_messages());
        let committed = light.take_committed_entries();
        self.apply(committed, &mut done)?;
        self.node.advance_apply();
        // Whoever is answered must find the state already there.
        self.publish();
        for (answer, result) in done {
            let _ = answer.send(result);
        }
        for read in reads {
            // The index is at most the commit, and all that is committed here is applied.
            let sequence = self.sequence_of(&read.request_ctx);
            if let Some(answer) = sequence.and_then(|s| self.reads.remove(&s)) {
                let result = if read.index <= self.applied {
                    Ok(())
                } else {
                    Err(ProposeError::Lost)
                };
                let _ = answer.send(result);
            }
        }
        self.compact()
    }

    /// A snapshot when enough came since the last one, or somebody needs one that he is in.
    fn compact(&mut self) -> Result<(), StoreError> {
        let wanted = self.node.store().take_wanted();
        let count = self.applied - self.node.store().snapshot_index().min(self.applied);
        let every = self.settings.snapshot_every;
        if !wanted && count < every && self.log_bytes < LOG_BYTES {
            return Ok(());
        }
        let started = Instant::now();
        let (applied, state) = (self.applied, self.state.to_json());
        let bytes = state.len();
        let keep = KEEP.min(every / 2);
        self.node.mut_store().compact(applied, state, keep)?;
        self.log_bytes = 0;
        info!(applied, bytes, took = ?started.elapsed(), "snapshot taken");
        Ok(())
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let to = message.to;
            let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let sent = match message.write_to_bytes() {
                Ok(bytes) => self.outbox.send(to, bytes),
                Err(reason) => {
                    warn!(%reason, "raft message can't be written");
                    false
                }
            };
            // How a snapshot went is said when it has gone.
            if snapshot && !sent {
                self.node.report_snapshot(to, SnapshotStatus::Failure);
            } else if !sent {
                self.node.report_unreachable(to);
            }
        }
    }

    fn install(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let meta = snapshot.get_metadata();
        match State::from_json(snapshot.get_data()) {
            Ok(state) => self.state = Arc::new(state),
            Err(reason) => {
                let chain = godwit_proto::failure::chain(&reason);
                error!(error = %chain, "the leader's snapshot can't be read");
                return Err(StoreError::Missing(meta.index));
            }
        }
        self.node.mut_store().install(snapshot)?;
        self.applied = meta.index;
        self.applied_term = meta.term;
        self.log_bytes = 0;
        self.configured();
        info!(index = meta.index, "snapshot installed");
        Ok(())
    }

    fn apply(&mut self, entries: Vec<Entry>, done: &mut Done) -> Result<(), StoreError> {
        let mut changed = None;
        for entry in entries {
            self.applied = entry.index;
            self.applied_term = entry.term;
            let change = entry.get_entry_type() != EntryType::EntryNormal;
            if entry.data.is_empty() && !change {
                continue;
            }
            self.log_bytes += entry.data.len();
            let result = if change {
                changed = Some(entry.index);
                self.apply_change(&entry)
            } else {
                self.apply_command(&entry.data, entry.index)
            };
            let sequence = self.sequence_of(&entry.context);
            if let Some(answer) = sequence.and_then(|s| self.waiting.remove(&s)) {
                done.push((answer, result.map_err(ProposeError::Refused)));
            } else if let Err(refusal) = result {
                debug!(index = entry.index, %refusal, "refused");
            }
        }
        match changed {
            Some(index) => self.node.mut_store().keep_commit(index),
            None => Ok(()),
        }
    }

    fn apply_command(&mut self, command: &[u8], index: u64) -> Result<Applied, Refusal> {
        match serde_json::from_slice::<Command>(command) {
            Ok(command) => {
                let result = apply(Arc::make_mut(&mut self.state), &command);
                if matches!(command, Command::Members { .. }) {
                    self.know_peers();
                    self.stand();
                }
                result
            }
            Err(reason) => {
                // Every member of this version reads it so; a newer one wrote it.
                error!(index, %reason, "command can't be read, upgrade this member");
                Err(Refusal::Invalid {
                    what: "command".to_owned(),
                    problem: reason.to_string(),
                })
            }
        }
    }

    fn publish(&self) {
        if self.published.borrow().applied != self.applied {
            self.published.send_replace(Published {
                state: self.state.clone(),
                applied: self.applied,
                ids: self.ids.clone(),
            });
        }
    }

    fn announce(&mut self) {
        let raft = &self.node.raft;
        let lead = raft.state == StateRole::Leader;
        let now = Leadership {
            term: raft.term,
            leader: (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id),
            leading: lead && self.applied_term == raft.term,
        };
        if !lead {
            self.fail_all(|| ProposeError::Lost);
        }
        let before = *self.leadership.borrow();
        if before != now {
            if now.leading && !before.leading {
                info!(term = now.term, "this member leads");
            } else if before.leading && !now.leading {
                info!(term = now.term, leader = ?now.leader, "this member leads no more");
            } else if before.leader != now.leader {
                info!(term = now.term, leader = ?now.leader, "leader");
            }
            self.leadership.send_replace(now);
        }
    }

    fn fail_all(&mut self, reason: impl Fn() -> ProposeError) {
        for (_, answer) in self.waiting.drain() {
            let _ = answer.send(Err(reason()));
        }
        for (_, answer) in std::mem::take(&mut self.deferred) {
            // Never proposed: nothing is in doubt.
            if let Some(answer) = answer {
                let _ = answer.send(Err(ProposeError::NotLeader));
            }
        }
        for (_, answer) in std::mem::take(&mut self.reads) {
            let _ = answer.send(Err(reason()));
        }
    }

    fn log_raft(&mut self, what: &str, act: impl FnOnce(&mut RawNode<Store>) -> raft::Result<()>) {
        if let Err(reason) = act(&mut self.node) {
            debug!(%reason, what, "raft refused");
        }
    }
}
