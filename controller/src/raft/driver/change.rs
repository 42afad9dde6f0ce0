//! Changes of who takes part, and of who leads. A change of Raft's configuration and of the
//! state's members is one entry: the state decides whether it is done, at every member the same.

use super::*;
use crate::raft::store::ids;

impl Driver {
    pub(super) fn propose_change(
        &mut self,
        change: &ConfChangeV2,
        command: Vec<u8>,
        answer: Answer,
    ) {
        self.sequence += 1;
        let mut context = self.context(self.sequence);
        context.extend(command);
        let joint = !self.node.store().conf().get_voters_outgoing().is_empty();
        let result = if self.node.raft.state != StateRole::Leader {
            Err(ProposeError::NotLeader)
        } else if self.node.raft.has_pending_conf() || joint != change.changes.is_empty() {
            // raft would make an empty entry of it, and nobody would be answered.
            Err(ProposeError::Refused(Refusal::MembersChanging {
                what: "a change is under way".into(),
            }))
        } else {
            let proposed = self.node.propose_conf_change(context, change.clone());
            proposed.map_err(|_| ProposeError::NotLeader)
        };
        match result {
            Ok(()) => drop(self.waiting.insert(self.sequence, answer)),
            Err(reason) => drop(answer.send(Err(reason))),
        }
    }

    pub(super) fn apply_change(&mut self, entry: &Entry) -> Result<Applied, Refusal> {
        let unreadable = |problem: String| Refusal::Invalid {
            what: "change of the members".into(),
            problem,
        };
        let change = ConfChangeV2::parse_from_bytes(&entry.data)
            .map_err(|reason| unreadable(reason.to_string()))?;
        let before = self.state.clone();
        // After the sixteen bytes that say whose proposal it is.
        let applied = match entry.context.get(16..) {
            Some(command) if !command.is_empty() => self.apply_command(command, entry.index)?,
            _ => Applied::Changed,
        };
        match self.node.apply_conf_change(&change) {
            Ok(conf) => {
                info!(index = entry.index, voters = ?conf.get_voters(),
                    learners = ?conf.get_learners(), outgoing = ?conf.get_voters_outgoing(),
                    "the group has changed");
                self.node.mut_store().set_conf(conf);
                self.configured();
                Ok(applied)
            }
            Err(reason) => {
                // By its configuration alone: every member refuses it.
                self.state = before;
                self.know_peers();
                Err(unreadable(reason.to_string()))
            }
        }
    }

    /// The configuration is another one.
    pub(super) fn configured(&mut self) {
        self.ids = Arc::new(ids(self.node.store().conf()));
        let own = self.node.raft.id;
        if self.state.members.gone.contains_key(&own) && !self.ids.contains(&own) {
            self.over = Some("it was taken out of the group".into());
        }
        self.know_peers();
        self.stand();
    }

    /// Those that take part now, and are reached where the state says, or the configuration.
    pub(super) fn know_peers(&mut self) {
        let roster = &self.state.members;
        let own = self.node.raft.id;
        let configured = &self.settings.configured;
        let find = |id: &u64| {
            let record = roster.members.get(id).or_else(|| roster.gone.get(id));
            let known = record.map(|record| Peer {
                id: *id,
                name: record.name.to_string(),
                address: record.address.clone(),
            });
            known.or_else(|| {
                let mut configured = configured.iter();
                configured.find(|peer| peer.id == *id).cloned()
            })
        };
        let others = self.ids.iter().filter(|id| **id != own);
        let mut peers: Vec<Peer> = others.filter_map(find).collect();
        self.met.retain(|id, _| *id > roster.last);
        let mut more: Vec<Peer> = self.met.values().cloned().collect();
        if !self.ids.contains(&own) {
            // A newcomer does not know yet who leads: all that it was told of may.
            more.extend(self.settings.configured.iter().cloned());
        }
        for peer in more {
            if peer.id != own && peers.iter().all(|known| known.id != peer.id) {
                peers.push(peer);
            }
        }
        self.outbox.set_peers(peers);
    }

    pub(super) fn hand_over(&mut self) -> bool {
        if self.node.raft.state != StateRole::Leader {
            return false;
        }
        let status = self.status();
        let own = self.node.raft.id;
        let best = status
            .members
            .iter()
            .filter(|(id, (reachable, _))| {
                **id != own && *reachable && status.conf.get_voters().contains(id)
            })
            .max_by_key(|(_, (_, matched))| *matched);
        match best {
            Some((id, _)) => {
                info!(to = id, "handing the lead over");
                self.node.transfer_leader(*id);
                true
            }
            None => false,
        }
    }

    pub(super) fn transfer(&mut self, to: u64) -> Result<(), TransferError> {
        if self.node.raft.state != StateRole::Leader {
            return Err(TransferError::NotLeader);
        }
        let status = self.status();
        if !status.conf.get_voters().contains(&to) {
            return Err(TransferError::NoVote);
        }
        match status.members.get(&to) {
            Some((true, _)) => {}
            _ => return Err(TransferError::Down),
        }
        if to != self.node.raft.id {
            info!(to, "handing the lead over");
            self.node.transfer_leader(to);
        }
        Ok(())
    }

    pub(super) fn status(&self) -> RaftStatus {
        let raft = &self.node.raft;
        let reachable = |id: u64| {
            id == raft.id
                || self
                    .heard
                    .get(&id)
                    .is_some_and(|at| at.elapsed() < REACHABLE)
        };
        let members = raft
            .prs()
            .iter()
            .map(|(id, progress)| (*id, (reachable(*id), progress.matched)))
            .collect();
        RaftStatus {
            term: raft.term,
            leader: (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id),
            applied: self.applied,
            commit: raft.raft_log.committed,
            conf: self.node.store().conf().clone(),
            members,
        }
    }
}
