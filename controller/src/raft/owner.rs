//! Whose log a file is: another's would be believed, and its votes with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub cluster: String,
    pub member: String,
    /// The Raft id.
    pub id: u64,
}

impl Owner {
    pub fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and a number")
    }

    pub fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cluster,
            member,
            id,
        } = self;
        write!(f, "member `{member}` (id {id}) of cluster `{cluster}`")
    }
}
