//! Who governs the cluster: the members by Raft id, those that are to leave, those that left.
//! What of it takes part in Raft is Raft's configuration; the two change in one log entry.
//!
//! Here is also what to change next, as a leader has to decide it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use godwit_types::{MemberName, MemberRecord, Refusal};
use serde::{Deserialize, Serialize};

/// A group of more costs more messages than it is worth.
pub const MAX_MEMBERS: usize = 5;

/// Entries between two marks of a member.
pub const MARK_EVERY: u64 = 1000;

/// The members as the state knows them. Empty until the first leader has written it down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Roster {
    /// Random: tells this group's log from that of another with the same name.
    pub group: String,
    /// The ids that the group began with: Raft's configuration before the first entry.
    pub founders: BTreeSet<u64>,
    /// The highest id that was ever given.
    pub last: u64,
    pub members: BTreeMap<u64, MemberRecord>,
    /// To be taken out.
    pub leaving: BTreeSet<u64>,
    /// Newcomer → the one that leaves when it has its vote.
    pub replaces: BTreeMap<u64, u64>,
    /// Up to which committed entry a member is known to have had the log, now and then written
    /// down: one that comes with less has lost what it promised to keep.
    pub marks: BTreeMap<u64, u64>,
    /// Taken out: their ids are never given again.
    pub gone: BTreeMap<u64, MemberRecord>,
}

/// A change of the roster. Those of Raft's configuration carry theirs in the same entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MemberChange {
    /// The first leader writes down who began.
    Found {
        group: String,
        members: Vec<MemberRecord>,
    },
    /// A newcomer, as a learner.
    Add {
        member: MemberRecord,
        #[serde(default)]
        replaces: Option<u64>,
    },
    /// These are to be taken out as soon as it is safe.
    Leave { ids: BTreeSet<u64> },
    /// These are out.
    Remove { ids: BTreeSet<u64> },
    /// Ids, and the committed entry that each is known to have.
    Reached { marks: Vec<(u64, u64)> },
}

/// Raft's side of the group as its leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    pub leader: u64,
    pub voters: BTreeSet<u64>,
    pub learners: BTreeSet<u64>,
    /// Between two configurations.
    pub joint: bool,
    /// Heard a moment ago.
    pub up: BTreeSet<u64>,
    /// Has all of the log but what is under way.
    pub caught_up: BTreeSet<u64>,
}

/// What to do next about the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Nothing,
    /// Leave the joint configuration.
    Settle,
    /// One change of Raft's configuration.
    Change {
        promote: BTreeSet<u64>,
        remove: BTreeSet<u64>,
    },
    /// The leader is to leave: one of these goes on.
    Transfer {
        to: BTreeSet<u64>,
    },
}

pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl Roster {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A member by its name.
    pub fn find(&self, name: &str) -> Result<&MemberRecord, Refusal> {
        let found = self.members.values().find(|m| m.name.as_str() == name);
        found.ok_or_else(|| Refusal::UnknownMember {
            member: name.chars().take(80).collect(),
        })
    }

    /// Those that stay: neither leaving nor replaced.
    pub fn staying(&self) -> impl Iterator<Item = u64> + '_ {
        let replaced: BTreeSet<u64> = self.replaces.values().copied().collect();
        let mut ids: Vec<u64> = self.members.keys().copied().collect();
        ids.retain(|id| !self.leaving.contains(id) && !replaced.contains(id));
        ids.into_iter()
    }

    fn names(&self, ids: impl IntoIterator<Item = u64>) -> Vec<MemberName> {
        let record = |id| self.members.get(&id).or_else(|| self.gone.get(&id));
        let named = ids.into_iter().filter_map(record);
        named.map(|record| record.name.clone()).collect()
    }

    /// Why this one can't be added; a repeat of what was added is no error.
    pub fn may_add(&self, member: &MemberRecord, replaces: Option<u64>) -> Result<(), Refusal> {
        if let Some(other) = self.members.values().find(|m| m.name == member.name) {
            return Err(in_use("name", other));
        }
        let mut others = self.members.values();
        if let Some(other) = others.find(|m| m.address == member.address) {
            return Err(in_use("address", other));
        }
        if member.id != self.last + 1 {
            return Err(Refusal::MembersChanging {
                what: "another one was added at the same time".into(),
            });
        }
        if let Some(old) = replaces {
            let record = self.members.get(&old);
            let record = record.ok_or_else(|| Refusal::UnknownMember {
                member: old.to_string(),
            })?;
            if self.leaving.contains(&old) || self.replaces.values().any(|id| *id == old) {
                return Err(Refusal::MembersChanging {
                    what: format!("`{}` is leaving already", record.name),
                });
            }
        } else if self.staying().count() >= MAX_MEMBERS {
            return Err(Refusal::Invalid {
                what: member.name.to_string(),
                problem: format!("a group has {MAX_MEMBERS} members at most"),
            });
        }
        Ok(())
    }

    /// Whether the group would go on without these.
    pub fn may_remove(&self, group: &Group, ids: &BTreeSet<u64>) -> Result<(), Refusal> {
        let leaving: BTreeSet<u64> = self.leaving.union(ids).copied().collect();
        let after: BTreeSet<u64> = group.voters.difference(&leaving).copied().collect();
        if after == group.voters {
            return Ok(());
        }
        let (up, down): (Vec<u64>, Vec<u64>) = after.iter().partition(|id| group.up.contains(id));
        let needed = majority(after.len());
        if !after.is_empty() && up.len() >= needed {
            return Ok(());
        }
        Err(Refusal::QuorumAtRisk {
            removed: self.names(leaving.intersection(&group.voters).copied()),
            down: self.names(down),
            voters: after.len() as u32,
            up: up.len() as u32,
            needed: needed as u32,
        })
    }

    /// What to do next.
    pub fn next(&self, group: &Group) -> Turn {
        if group.joint {
            return Turn::Settle;
        }
        let ready = |id: &u64| group.learners.contains(id) && group.caught_up.contains(id);
        let known: BTreeSet<u64> = group.voters.union(&group.learners).copied().collect();
        let mut remove: BTreeSet<u64> = self.leaving.intersection(&known).copied().collect();
        let mut promote = BTreeSet::new();
        for (new, old) in &self.replaces {
            if !self.leaving.contains(new) && (ready(new) || group.voters.contains(new)) {
                remove.extend(known.contains(old).then_some(*old));
                promote.extend(ready(new).then_some(*new));
            }
        }
        let mut free: Vec<u64> = group.learners.iter().copied().filter(ready).collect();
        free.retain(|id| !remove.contains(id) && !self.replaces.contains_key(id));
        let settled = group.voters.difference(&remove).count() + promote.len();
        // An even number of votes is no safer than one less: the last one waits for another.
        let room = MAX_MEMBERS.saturating_sub(settled).min(free.len());
        let more = if (settled + room) % 2 == 1 {
            room
        } else {
            room.saturating_sub(1)
        };
        promote.extend(free.into_iter().take(more));
        if remove.contains(&group.leader) {
            let stay = |id: &u64| !remove.contains(id) && group.up.contains(id);
            let to: BTreeSet<u64> = group.voters.iter().copied().filter(stay).collect();
            if !to.is_empty() {
                return Turn::Transfer { to };
            }
            // Nobody to hand the lead to before a newcomer has its vote.
            remove.remove(&group.leader);
        }
        let stay = group.voters.difference(&remove);
        let after: BTreeSet<u64> = stay.chain(&promote).copied().collect();
        let up = after.intersection(&group.up).count();
        if after != group.voters && up < majority(after.len()) {
            // Only what touches no vote.
            remove.retain(|id| group.learners.contains(id));
            promote.clear();
        }
        if promote.is_empty() && remove.is_empty() {
            return Turn::Nothing;
        }
        Turn::Change { promote, remove }
    }

    /// The marks to write down, of what each is known to have now.
    pub fn marks_due(&self, known: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
        let due = |(id, reached): &(u64, u64)| {
            let mark = self.marks.get(id).copied();
            let least = mark.map_or(1, |mark| mark + MARK_EVERY);
            *reached >= least && self.members.contains_key(id)
        };
        known.into_iter().filter(due).collect()
    }

    /// What to know of a member that is not simply there.
    pub fn note(&self, group: &Group, id: u64) -> Option<String> {
        let name = |id: &u64| self.members.get(id).map(|m| m.name.to_string());
        if self.leaving.contains(&id) {
            return Some("leaving".into());
        }
        if let Some((new, _)) = self.replaces.iter().find(|(_, old)| **old == id) {
            return Some(format!("leaves for `{}`", name(new)?));
        }
        if !group.learners.contains(&id) {
            return None;
        }
        if !group.caught_up.contains(&id) {
            let awaited = if group.up.contains(&id) {
                "catching up"
            } else {
                "waits to be started"
            };
            return Some(awaited.into());
        }
        Some("waits for another: an even group is no safer".into())
    }

    /// What does not hold in `now`, or between the two.
    pub fn check(before: &Self, now: &Self) -> Result<(), String> {
        if now.last < before.last {
            return Err("a member's id could be given again".into());
        }
        if let Some(id) = before.gone.keys().find(|id| !now.gone.contains_key(id)) {
            return Err(format!("member {id} came back"));
        }
        for (id, member) in &now.members {
            if member.id != *id || *id > now.last || now.gone.contains_key(id) {
                return Err(format!("member {id} has a wrong id"));
            }
            if before.marks.get(id) > now.marks.get(id) {
                return Err(format!("the mark of member {id} fell"));
            }
            if !before.members.contains_key(id) && *id <= before.last {
                return Err(format!("member {id} has the id of another"));
            }
        }
        Ok(())
    }
}

fn in_use(what: &str, by: &MemberRecord) -> Refusal {
    Refusal::MemberInUse {
        what: what.to_owned(),
        member: by.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64) -> MemberRecord {
        MemberRecord {
            id,
            name: MemberName::new(format!("m{id}")).unwrap(),
            address: format!("10.0.0.{id}:1"),
        }
    }

    fn set(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn roster(ids: &[u64]) -> Roster {
        Roster {
            last: *ids.last().unwrap(),
            members: ids.iter().map(|id| (*id, record(*id))).collect(),
            ..Roster::default()
        }
    }

    /// All up, learners caught up, led by the first voter.
    fn group(voters: &[u64], learners: &[u64]) -> Group {
        let all: Vec<u64> = voters.iter().chain(learners).copied().collect();
        Group {
            leader: voters[0],
            voters: set(voters),
            learners: set(learners),
            joint: false,
            up: set(&all),
            caught_up: set(&all),
        }
    }

    fn change(promote: &[u64], remove: &[u64]) -> Turn {
        Turn::Change {
            promote: set(promote),
            remove: set(remove),
        }
    }

    #[test]
    fn newcomers_get_their_votes_when_the_number_is_odd_with_them() {
        let two = roster(&[1, 2]);
        assert_eq!(two.next(&group(&[1], &[2])), Turn::Nothing);
        let three = roster(&[1, 2, 3]);
        let mut late = group(&[1], &[2, 3]);
        assert_eq!(three.next(&late), change(&[2, 3], &[]));
        late.caught_up.remove(&3);
        assert_eq!(three.next(&late), Turn::Nothing);
        // One was lost for good: the next makes three again.
        assert_eq!(
            roster(&[1, 2, 4]).next(&group(&[1, 2], &[4])),
            change(&[4], &[])
        );
        let many = roster(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(
            many.next(&group(&[1, 2, 3, 4, 5], &[6])),
            Turn::Nothing,
            "six are too many"
        );
    }

    #[test]
    fn a_leader_that_leaves_hands_over_first() {
        let mut three = roster(&[1, 2, 3]);
        three.leaving = set(&[1, 2]);
        let mut now = group(&[1, 2, 3], &[]);
        assert_eq!(three.next(&now), Turn::Transfer { to: set(&[3]) });
        now.leader = 3;
        assert_eq!(three.next(&now), change(&[], &[1, 2]));
        now.joint = true;
        assert_eq!(three.next(&now), Turn::Settle);
    }

    #[test]
    fn the_only_member_is_replaced_once_the_newcomer_has_its_vote() {
        let mut two = roster(&[1, 2]);
        two.replaces.insert(2, 1);
        let mut now = group(&[1], &[2]);
        now.caught_up.remove(&2);
        assert_eq!(two.next(&now), Turn::Nothing);
        now.caught_up.insert(2);
        assert_eq!(two.next(&now), change(&[2], &[]));
        now = group(&[1, 2], &[]);
        assert_eq!(two.next(&now), Turn::Transfer { to: set(&[2]) });
        now.leader = 2;
        assert_eq!(two.next(&now), change(&[], &[1]));
    }

    #[test]
    fn one_of_three_is_replaced_in_one_change() {
        let mut four = roster(&[1, 2, 3, 4]);
        four.replaces.insert(4, 3);
        let mut now = group(&[1, 2, 3], &[4]);
        // The one that leaves is down already.
        now.up.remove(&3);
        assert_eq!(four.next(&now), change(&[4], &[3]));
        assert_eq!(four.note(&now, 3).as_deref(), Some("leaves for `m4`"));
    }

    #[test]
    fn what_would_stand_still_is_refused() {
        let three = roster(&[1, 2, 3]);
        let mut now = group(&[1, 2, 3], &[]);
        assert_eq!(three.may_remove(&now, &set(&[2])), Ok(()));
        assert_eq!(three.may_remove(&now, &set(&[2, 3])), Ok(()));
        assert!(three.may_remove(&now, &set(&[1, 2, 3])).is_err());
        now.up.remove(&3);
        let refusal = three.may_remove(&now, &set(&[2])).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "without `m2` the group would have 1 of 2 voters up and needs 2: it would stand \
             still; `m3` is down"
        );
        assert_eq!(three.may_remove(&now, &set(&[3])), Ok(()));
        // It went down after it was asked for: what is safe is done, the rest waits.
        let mut asked = three.clone();
        asked.leaving = set(&[2]);
        assert_eq!(asked.next(&now), Turn::Nothing);
    }

    #[test]
    fn marks_are_written_down_now_and_then() {
        let mut two = roster(&[1, 2]);
        assert_eq!(two.marks_due([(1, 7), (2, 0), (9, 7)]), [(1, 7)]);
        two.marks.insert(1, 7);
        assert!(two.marks_due([(1, 1006)]).is_empty());
        assert_eq!(two.marks_due([(1, 1007)]), [(1, 1007)]);
    }

    #[test]
    fn an_id_is_given_once() {
        let mut three = roster(&[1, 2, 3]);
        three.members.remove(&3);
        three.gone.insert(3, record(3));
        assert!(three.may_add(&record(3), None).is_err());
        let mut again = record(4);
        again.name = record(3).name;
        assert_eq!(three.may_add(&again, None), Ok(()), "its name is free");
        again.name = record(1).name;
        assert!(matches!(
            three.may_add(&again, None),
            Err(Refusal::MemberInUse { .. })
        ));
        let mut back = three.clone();
        back.gone.clear();
        assert!(Roster::check(&three, &back).is_err());
    }
}
