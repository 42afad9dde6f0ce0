//! The members. What also changes Raft's configuration comes in the entry that does so, and
//! decides there whether it is done.

use std::collections::BTreeSet;

use godwit_types::{MemberRecord, Refusal};

use super::Applied;
use crate::{
    roster::{MemberChange, Roster},
    state::State,
};

pub(super) fn change(state: &mut State, change: &MemberChange) -> Result<Applied, Refusal> {
    let roster = &mut state.members;
    match change {
        MemberChange::Found { group, members } => Ok(found(roster, group, members)),
        MemberChange::Add { member, replaces } => {
            roster.may_add(member, *replaces)?;
            roster.last = member.id;
            roster.members.insert(member.id, member.clone());
            if let Some(old) = replaces {
                roster.replaces.insert(member.id, *old);
            }
            Ok(Applied::Changed)
        }
        MemberChange::Leave { ids } => leave(roster, ids),
        MemberChange::Remove { ids } => Ok(remove(roster, ids)),
        MemberChange::Reached { marks } => Ok(reached(roster, marks)),
    }
}

fn found(roster: &mut Roster, group: &str, members: &[MemberRecord]) -> Applied {
    // The first stands: two leaders may both have proposed it.
    if !roster.is_empty() || group.is_empty() || members.is_empty() {
        return Applied::Unchanged;
    }
    group.clone_into(&mut roster.group);
    roster.members = members.iter().map(|m| (m.id, m.clone())).collect();
    roster.founders = roster.members.keys().copied().collect();
    roster.last = roster.founders.last().copied().unwrap_or(0);
    Applied::Changed
}

fn leave(roster: &mut Roster, ids: &BTreeSet<u64>) -> Result<Applied, Refusal> {
    if let Some(id) = ids.iter().find(|id| !roster.members.contains_key(id)) {
        let gone = roster.gone.get(id);
        return Err(Refusal::UnknownMember {
            member: gone.map_or_else(|| id.to_string(), |m| m.name.to_string()),
        });
    }
    if !roster.staying().any(|id| !ids.contains(&id)) {
        return Err(Refusal::Invalid {
            what: "the last member".into(),
            problem: "it can only be replaced".into(),
        });
    }
    if ids.is_subset(&roster.leaving) {
        return Ok(Applied::Unchanged);
    }
    roster.leaving.extend(ids);
    Ok(Applied::Changed)
}

fn remove(roster: &mut Roster, ids: &BTreeSet<u64>) -> Applied {
    let mut changed = Applied::Unchanged;
    for id in ids {
        let Some(member) = roster.members.remove(id) else {
            continue;
        };
        changed = Applied::Changed;
        roster.gone.insert(*id, member);
        roster.leaving.remove(id);
        roster.marks.remove(id);
        roster.replaces.retain(|new, old| new != id && old != id);
    }
    changed
}

fn reached(roster: &mut Roster, marks: &[(u64, u64)]) -> Applied {
    let mut changed = Applied::Unchanged;
    for (id, reached) in marks {
        let known = roster.marks.get(id).copied().unwrap_or(0);
        if *reached > known && roster.members.contains_key(id) {
            roster.marks.insert(*id, *reached);
            changed = Applied::Changed;
        }
    }
    changed
}
