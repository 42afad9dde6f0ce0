//! The members: the first leader writes down who began, and every leader goes on with what was
//! asked for, one change of the group at a time.

use std::{sync::Arc, time::Duration};

use godwit_core::{Command, Group, MemberChange, Roster, Turn};
use godwit_types::MemberRecord;
use tracing::{info, warn};

use super::Leader;
use crate::{
    ids,
    raft::{Kind, ProposeError, RaftStatus},
};

/// Between two looks.
const TURN: Duration = Duration::from_millis(200);
/// Entries that may be under way to one that has caught up.
const UNDER_WAY: u64 = 32;

/// Runs until the lead ends.
pub async fn run(leader: Arc<Leader>) {
    if leader.state().members.is_empty() {
        let change = MemberChange::Found {
            group: ids::group_id(),
            members: leader.configured.clone(),
        };
        leader.raft.propose_detached(&Command::Members { change });
    }
    let mut last = Turn::Nothing;
    loop {
        tokio::time::sleep(TURN).await;
        let Some(status) = leader.raft.status().await else {
            return;
        };
        let roster = leader.state().members.clone();
        mark(&leader, &roster, &status);
        let group = group(&status);
        let turn = roster.next(&group);
        if turn != last && turn != Turn::Nothing {
            info!(?turn, "members");
        }
        if let Err(reason) = take(&leader, &turn, &status).await {
            warn!(%reason, "members can't be changed now");
        }
        last = turn;
    }
}

/// How the group stands for its leader.
pub fn group(status: &RaftStatus) -> Group {
    let set = |ids: &[u64]| ids.iter().copied().collect();
    let members = &status.members;
    let up = members.iter().filter(|(_, (reachable, _))| *reachable);
    let caught_up = up.clone().filter(|(_, (_, matched))| {
        // Nothing at all is not little behind.
        *matched > 0 && matched + UNDER_WAY >= status.commit
    });
    Group {
        leader: status.leader.unwrap_or(0),
        voters: set(status.conf.get_voters()),
        learners: set(status.conf.get_learners()),
        joint: !status.conf.get_voters_outgoing().is_empty(),
        up: up.clone().map(|(id, _)| *id).collect(),
        caught_up: caught_up.map(|(id, _)| *id).collect(),
    }
}

async fn take(leader: &Leader, turn: &Turn, status: &RaftStatus) -> Result<(), ProposeError> {
    match turn {
        Turn::Nothing => Ok(()),
        // raft leaves by itself; this is for one that was elected in between.
        Turn::Settle => match leader.raft.change(Vec::new(), None).await {
            Err(ProposeError::Refused(_)) | Ok(_) => Ok(()),
            Err(other) => Err(other),
        },
        Turn::Change { promote, remove } => {
            let promoted = promote.iter().map(|id| (*id, Kind::Voter));
            let removed = remove.iter().map(|id| (*id, Kind::Out));
            let changes = promoted.chain(removed).collect();
            let change = MemberChange::Remove {
                ids: remove.clone(),
            };
            let command = Command::Members { change };
            let command = (!remove.is_empty()).then_some(&command);
            leader.raft.change(changes, command).await.map(drop)
        }
        Turn::Transfer { to } => {
            let matched = |id: &u64| status.members.get(id).map_or(0, |(_, matched)| *matched);
            if let Some(best) = to.iter().copied().max_by_key(matched) {
                // The next leader goes on.
                let _ = leader.raft.transfer(best).await;
                tokio::time::sleep(TURN * 5).await;
            }
            Ok(())
        }
    }
}

/// Writes down how far members are known to have come.
fn mark(leader: &Leader, roster: &Roster, status: &RaftStatus) {
    let committed = |(id, (_, matched)): (&u64, &(bool, u64))| (*id, status.commit.min(*matched));
    let marks = roster.marks_due(status.members.iter().map(committed));
    if !marks.is_empty() {
        info!(?marks, "members are known to have so much of the log");
        let change = MemberChange::Reached { marks };
        leader.raft.propose_detached(&Command::Members { change });
    }
}

/// The members as the state names them, or else the configuration.
pub fn known(roster: &Roster, configured: &[MemberRecord]) -> Vec<MemberRecord> {
    if roster.members.is_empty() {
        configured.to_vec()
    } else {
        roster.members.values().cloned().collect()
    }
}
