//! A member of the group that governs the cluster: what it is in it, and what a newcomer is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::MemberName;

/// What a member is in its group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberRole {
    Leader,
    #[default]
    Follower,
    /// It is sent everything and has no vote yet.
    Learner,
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        })
    }
}

/// Who a member is and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The Raft id.
    pub id: u64,
    pub name: MemberName,
    /// `address:port`
    pub address: String,
}

/// What a change of the members answers: all that a newcomer's configuration needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// All of them, newcomers included.
    pub members: Vec<MemberRecord>,
    /// The Raft ids that the group began with.
    pub founders: Vec<u64>,
    /// What to know of the group as it is now.
    #[serde(default)]
    pub notes: Vec<String>,
}
