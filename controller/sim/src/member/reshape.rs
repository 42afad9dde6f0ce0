//! Changes of the group: an admin who asks for them, and the leader who goes on with what was
//! asked for, as `controller/src/leader/members.rs` does.

use std::collections::BTreeSet;

use godwit_core::{Group, MemberChange, Turn};
use godwit_types::{MemberName, MemberRecord};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2};

use super::*;
use crate::event::SECOND;

/// Ticks between two looks of a leader.
const LOOK: u64 = 4;
/// A member that was heard this recently is up.
const REACHABLE: Micros = 3 * SECOND / 2;
/// Entries that may be under way to one that has caught up.
const UNDER_WAY: u64 = 32;

fn record(id: u64) -> MemberRecord {
    MemberRecord {
        id,
        name: MemberName::new(format!("m{id}")).expect("a valid name"),
        address: format!("192.0.2.{}:7400", 100 + id),
    }
}

fn written(change: MemberChange) -> Vec<u8> {
    let command = Command::Members { change };
    serde_json::to_vec(&command).expect("every key of a command is text")
}

impl Member {
    /// An admin asks this leader for another group; there are so many machines for members.
    pub(super) fn reshape(&mut self, machines: usize, context: &mut Context) {
        let now = context.now;
        let Some(process) = &mut self.process else {
            return;
        };
        let roster = process.state.members.clone();
        if process.leader.is_none() || roster.is_empty() {
            return;
        }
        let rng = &mut context.rng;
        let all: Vec<u64> = roster.members.keys().copied().collect();
        if (roster.last as usize) < machines && rng.chance(6000) {
            let member = record(roster.last + 1);
            let replaces = rng.chance(4000).then(|| all[rng.index(all.len())]);
            if roster.may_add(&member, replaces).is_err() {
                return;
            }
            let change = (member.id, ConfChangeType::AddLearnerNode);
            let command = written(MemberChange::Add { member, replaces });
            process.change(vec![change], command);
        } else {
            let count = 1 + rng.index(2);
            let ids: BTreeSet<u64> = (0..count).map(|_| all[rng.index(all.len())]).collect();
            if roster.may_remove(&process.group(now), &ids).is_err() {
                return;
            }
            process.say(written(MemberChange::Leave { ids }));
        }
    }

    /// What the leader does about the members now.
    pub(super) fn turn(&mut self, context: &mut Context) {
        let now = context.now;
        let Some(process) = &mut self.process else {
            return;
        };
        if process.leader.is_none() || !process.ticks.is_multiple_of(LOOK) {
            return;
        }
        if process.state.members.is_empty() {
            process.say(written(MemberChange::Found {
                group: "g".into(),
                members: (0..self.founders).map(raft_id).map(record).collect(),
            }));
            return;
        }
        match process.state.members.next(&process.group(now)) {
            Turn::Nothing => {}
            Turn::Settle => process.change(Vec::new(), Vec::new()),
            Turn::Change { promote, remove } => {
                let promoted = promote.iter().map(|id| (*id, ConfChangeType::AddNode));
                let removed = remove.iter().map(|id| (*id, ConfChangeType::RemoveNode));
                let changes = promoted.chain(removed).collect();
                let command = if remove.is_empty() {
                    Vec::new()
                } else {
                    written(MemberChange::Remove { ids: remove })
                };
                process.change(changes, command);
            }
            Turn::Transfer { to } => {
                let matched = |id: &u64| process.node.raft.prs().get(*id).map_or(0, |p| p.matched);
                if let Some(best) = to.iter().copied().max_by_key(matched) {
                    process.node.transfer_leader(best);
                }
            }
        }
    }

    /// Whether this member takes another for one that was taken out.
    pub fn refuses(&self, id: u64) -> bool {
        let takes_part = self.disk.ids().contains(&id);
        let process = self.process.as_ref();
        !takes_part && process.is_some_and(|p| p.state.members.gone.contains_key(&id))
    }

    /// It was told that it was taken out: its program ends, for good.
    pub fn retire(&mut self, context: &mut Context) {
        self.retired = true;
        self.crash(context);
    }
}

impl Process {
    fn say(&mut self, command: Vec<u8>) {
        self.sequence += 1;
        let context = self.context(self.sequence);
        // Dropped: it is asked for again.
        let _ = self.node.propose(context, command);
    }

    fn change(&mut self, changes: Vec<(u64, ConfChangeType)>, command: Vec<u8>) {
        let joint = self.node.raft.prs().conf().to_conf_state();
        let joint = !joint.get_voters_outgoing().is_empty();
        if self.node.raft.has_pending_conf() || joint != changes.is_empty() {
            return;
        }
        let singles = changes.into_iter().map(|(node_id, kind)| {
            let mut single = ConfChangeSingle {
                node_id,
                ..ConfChangeSingle::default()
            };
            single.set_change_type(kind);
            single
        });
        let mut change = ConfChangeV2::default();
        change.set_changes(singles.collect::<Vec<_>>().into());
        self.sequence += 1;
        let mut context = self.context(self.sequence);
        context.extend(command);
        let _ = self.node.propose_conf_change(context, change);
    }

    fn group(&self, now: Micros) -> Group {
        let raft = &self.node.raft;
        let conf = raft.prs().conf().to_conf_state();
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        let (voters, learners) = (set(conf.get_voters()), set(conf.get_learners()));
        let lately = |id: &u64| {
            let heard = self.heard.get(id);
            *id == raft.id || heard.is_some_and(|at| now - at < REACHABLE)
        };
        let all = voters.union(&learners).copied();
        let up: BTreeSet<u64> = all.filter(lately).collect();
        let near = |id: &u64| {
            let matched = raft.prs().get(*id).map_or(0, |progress| progress.matched);
            matched > 0 && matched + UNDER_WAY >= raft.raft_log.committed
        };
        Group {
            leader: raft.id,
            joint: !conf.get_voters_outgoing().is_empty(),
            caught_up: up.iter().copied().filter(near).collect(),
            voters,
            learners,
            up,
        }
    }

    /// The state decides whether it is done, then raft's configuration follows.
    pub(super) fn apply_change(&mut self, entry: &Entry, disk: &Disk) -> Result<(), String> {
        let change = ConfChangeV2::parse_from_bytes(&entry.data).map_err(|e| e.to_string())?;
        let before = self.state.clone();
        if let Some(command) = entry.context.get(16..).filter(|c| !c.is_empty()) {
            let command: Command = serde_json::from_slice(command).expect("this build wrote it");
            if apply(Rc::make_mut(&mut self.state), &command).is_err() {
                return Ok(());
            }
        }
        match self.node.apply_conf_change(&change) {
            Ok(conf) => disk.set_conf(conf),
            Err(_) => self.state = before,
        }
        disk.keep_commit(entry.index);
        Ok(())
    }
}
