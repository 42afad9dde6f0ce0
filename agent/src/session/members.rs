//! Which member to try next. Pure.

use godwit_proto::config::MemberAddress;

/// The members in turn, and the one that another has named as the leader first.
#[derive(Debug)]
pub struct Members {
    members: Vec<MemberAddress>,
    turn: usize,
    suggested: Option<Next>,
}

/// Whom to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    pub address: String,
    /// The name its certificate must carry; None: any member's.
    pub name: Option<String>,
}

impl Members {
    /// `members` is not empty.
    pub fn new(members: Vec<MemberAddress>) -> Self {
        Self {
            members,
            turn: 0,
            suggested: None,
        }
    }

    /// These are the members now; not empty.
    pub fn set(&mut self, members: Vec<MemberAddress>) {
        if self.members != members {
            self.members = members;
            self.turn = 0;
        }
    }

    pub fn next(&mut self) -> Next {
        if let Some(next) = self.suggested.take() {
            return next;
        }
        let member = &self.members[self.turn % self.members.len()];
        self.turn += 1;
        Next {
            address: member.address.clone(),
            name: Some(member.name.to_string()),
        }
    }

    /// A member has named the leader's address; empty: it knows none. Answers whether there is
    /// someone to try at once. A leader that joined later is not in our configuration: then any
    /// member's certificate will do.
    pub fn suggest(&mut self, leader: &str) -> bool {
        if leader.is_empty() {
            return false;
        }
        let known = self.members.iter().find(|member| member.address == leader);
        self.suggested = Some(Next {
            address: leader.to_owned(),
            name: known.map(|member| member.name.to_string()),
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::MemberName;

    #[test]
    fn a_suggested_leader_comes_before_the_turn() {
        let member = |id: u64| MemberAddress {
            id,
            name: MemberName::new(format!("m{id}")).unwrap(),
            address: format!("10.0.0.{id}:7000"),
        };
        let mut members = Members::new(vec![member(1), member(2)]);
        assert_eq!(members.next().name.as_deref(), Some("m1"));
        assert!(!members.suggest(""));
        assert!(members.suggest("10.0.0.9:7000"));
        assert_eq!(
            members.next(),
            Next {
                address: "10.0.0.9:7000".into(),
                name: None
            }
        );
        assert!(members.suggest("10.0.0.2:7000"));
        assert_eq!(members.next().name.as_deref(), Some("m2"));
        assert_eq!(members.next().name.as_deref(), Some("m2"));
        assert_eq!(members.next().name.as_deref(), Some("m1"));
        members.set(vec![member(9)]);
        assert_eq!(members.next().name.as_deref(), Some("m9"));
        assert_eq!(members.next().name.as_deref(), Some("m9"));
    }
}
