//! The members as a leader named them last, kept over restarts: those of the configuration may
//! all have been replaced since.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use godwit_proto::config::MemberAddress;
use godwit_types::Membership;

const FILE: &str = "members.json";
/// A group has five; one that is being replaced has more.
const MOST: usize = 16;

/// Where they are kept.
#[derive(Debug, Clone)]
pub struct Known(PathBuf);

impl Known {
    pub fn in_dir(data: &Path) -> Self {
        Self(data.join(FILE))
    }

    /// Those of the last leader, then those of the configuration that it did not name.
    pub fn merge(&self, configured: &[MemberAddress]) -> Vec<MemberAddress> {
        let told = fs::read(&self.0).ok();
        let told: Option<Vec<MemberAddress>> =
            told.and_then(|json| serde_json::from_slice(&json).ok());
        merged(told.unwrap_or_default(), configured)
    }

    /// What a leader said. None: nothing that can be used.
    pub fn learn(
        &self,
        said: &Membership,
        configured: &[MemberAddress],
    ) -> Option<Vec<MemberAddress>> {
        let told: Vec<MemberAddress> = said
            .members
            .iter()
            .take(MOST)
            .filter(|member| member.address.parse::<SocketAddr>().is_ok())
            .map(|member| MemberAddress {
                id: member.id,
                name: member.name.clone(),
                address: member.address.clone(),
            })
            .collect();
        if told.is_empty() {
            return None;
        }
        if let Err(error) = self.keep(&told) {
            // They are asked for again at the next session.
            tracing::warn!(path = %self.0.display(), %error, "members can't be remembered");
        }
        Some(merged(told, configured))
    }

    fn keep(&self, members: &[MemberAddress]) -> io::Result<()> {
        let json = serde_json::to_vec(members)?;
        if fs::read(&self.0).is_ok_and(|before| before == json) {
            return Ok(());
        }
        let new = self.0.with_extension("new");
        fs::write(&new, json)?;
        fs::rename(&new, &self.0)
    }
}

fn merged(mut told: Vec<MemberAddress>, configured: &[MemberAddress]) -> Vec<MemberAddress> {
    for member in configured {
        if told.iter().all(|known| known.address != member.address) {
            told.push(member.clone());
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use godwit_types::{MemberName, MemberRecord};

    use super::*;

    fn address(id: u64) -> MemberAddress {
        MemberAddress {
            id,
            name: MemberName::new(format!("m{id}")).unwrap(),
            address: format!("10.0.0.{id}:7400"),
        }
    }

    fn said(ids: &[u64]) -> Membership {
        let record = |id: &u64| MemberRecord {
            id: *id,
            name: address(*id).name,
            address: address(*id).address,
        };
        Membership {
            members: ids.iter().map(record).collect(),
            founders: vec![1],
            notes: Vec::new(),
        }
    }

    #[test]
    fn what_a_leader_said_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let known = Known::in_dir(dir.path());
        let configured = [address(1)];
        assert_eq!(known.merge(&configured), configured);
        let now = known.learn(&said(&[2, 3]), &configured).unwrap();
        let expected = [address(2), address(3), address(1)];
        assert_eq!(now, expected);
        assert_eq!(Known::in_dir(dir.path()).merge(&configured), expected);
        assert_eq!(known.learn(&said(&[]), &configured), None);
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(known.merge(&configured), configured);
    }
}
