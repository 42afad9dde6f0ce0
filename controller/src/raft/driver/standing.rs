//! Whether a member may take part: its own log against what others know of it.
//!
//! A member restored from an old copy, or without its log, has forgotten votes and entries that
//! it promised to keep: with its next vote the group could elect a leader that lacks what was
//! committed. What gives it away is that others know more of its log than it has.

use super::*;

impl Driver {
    /// What we say of ourselves when we begin to speak to another.
    pub(super) fn stand(&self) {
        let standing = Standing {
            group: self.node.store().group().to_owned(),
            term: self.node.raft.term,
            last: self.node.store().last(),
        };
        self.settings.standing.send_if_modified(|before| {
            let changed = *before != standing;
            *before = standing;
            changed
        });
    }

    /// A leader's heartbeat commits no more than we have told it that we have: one that goes
    /// beyond our end tells that we have lost it. raft would panic.
    pub(super) fn knows_more_of_us(&mut self, message: &Message) -> Result<bool, StoreError> {
        let last = self.node.raft.raft_log.last_index();
        if message.get_msg_type() != MessageType::MsgHeartbeat
            || message.term < self.node.raft.term
            || message.commit <= last
        {
            return Ok(false);
        }
        let reason = lost(message.commit, last);
        self.give_up(reason)?;
        Ok(true)
    }

    /// Another member begins to speak. Answers why it may not.
    pub(super) fn meet(&mut self, peer: Peer, last: u64) -> Option<String> {
        let doubt = self.doubt(peer.id, last);
        if doubt.is_none() && peer.id > self.state.members.last {
            // Added after what we know, and maybe the leader: it has to be answered.
            self.met.insert(peer.id, peer);
            self.know_peers();
        }
        doubt
    }

    /// Why a member can't have the log that it says it has.
    fn doubt(&self, from: u64, last: u64) -> Option<String> {
        let raft = &self.node.raft;
        let matched = if raft.state == StateRole::Leader {
            raft.prs().get(from).map_or(0, |progress| progress.matched)
        } else {
            0
        };
        let marked = self.state.members.marks.get(&from).copied().unwrap_or(0);
        let known = matched.max(marked);
        (last < known).then(|| lost(known, last))
    }

    /// Another member won't hear us.
    pub(super) fn refused(&mut self, refused: Refused) -> Result<(), StoreError> {
        if refused.known {
            return self.give_up(refused.reason);
        }
        self.strangers.insert(refused.peer);
        let voters = self.node.store().conf().get_voters();
        let of_voters = voters.iter().filter(|id| self.strangers.contains(id));
        if of_voters.count() >= godwit_core::majority(voters.len()) {
            self.over = Some(refused.reason);
        }
        Ok(())
    }

    fn give_up(&mut self, reason: String) -> Result<(), StoreError> {
        if self.over.is_none() {
            self.node.mut_store().mark_unfit(&reason)?;
            self.over = Some(reason);
        }
        Ok(())
    }
}

fn lost(known: u64, last: u64) -> String {
    format!(
        "its log ends at entry {last} and had entry {known} before: it is an old copy, or was \
         lost; take the member out and add it again with an empty data directory"
    )
}
