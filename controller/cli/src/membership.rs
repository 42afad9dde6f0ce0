//! Changes of the members: what is asked of the cluster, and the configuration directory that a
//! newcomer is started with.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use godwit_proto::{
    config::{self, AdminConfig, ConfigError, MemberAddress, MemberConfig},
    control::{AddMemberRequest, MemberRequest, RemoveMembersRequest},
    tls::{Authority, AuthorityError, Credentials, CredentialsError, Identity, Role},
    v1::Empty,
};
use godwit_types::{MemberName, MemberRecord, MemberView, Membership};
use serde::Serialize;

use crate::{
    address::Part,
    client::{Cluster, Control},
    cluster::Made,
    error::ClientError,
};

/// A member that the cluster knows and nobody has started yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Added {
    pub cluster: String,
    /// Its Raft id.
    pub id: u64,
    pub member: Made,
    pub members: Vec<MemberRecord>,
    pub notes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("`{path}` can't be read: it is the authority that `godwit cluster init` made")]
    NoAuthority {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the authority in `{dir}` is not that of the cluster: its members would not hear `{name}`"
    )]
    OtherAuthority { dir: PathBuf, name: MemberName },
    #[error(
        "a local socket does not say whose authority the cluster trusts: use `--config` with an \
         `admin` directory"
    )]
    Local,
    #[error("the cluster did not say who `{0}` is")]
    Missing(MemberName),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The authority that may make a member of this cluster. Read before anything is changed.
pub fn authority(
    cluster: &Cluster,
    dir: &Path,
    name: &MemberName,
) -> Result<Authority, MembershipError> {
    let ca = dir.join("ca");
    let read = |file: &str| {
        let path = ca.join(file);
        fs::read_to_string(&path).map_err(|source| MembershipError::NoAuthority { path, source })
    };
    let certificate = read("ca.pem")?;
    let trust = cluster.trust().ok_or(MembershipError::Local)?;
    if certificate.trim() != trust.authority.trim() {
        return Err(MembershipError::OtherAuthority {
            dir: ca,
            name: name.clone(),
        });
    }
    Ok(Authority::load(&certificate, &read("ca.key")?)?)
}

/// Makes a member known to the cluster, and writes `DIR/members/NAME`. `replaces`: who leaves
/// when it has its vote.
pub async fn add(
    cluster: &mut Cluster,
    dir: &Path,
    part: &Part<MemberName>,
    replaces: Option<&str>,
) -> Result<Added, MembershipError> {
    let authority = authority(cluster, dir, &part.name)?;
    let name = cluster.trust().ok_or(MembershipError::Local)?.name.clone();
    let request = AddMemberRequest {
        name: part.name.to_string(),
        address: part.address.to_string(),
        replaces: replaces.unwrap_or_default().to_owned(),
    };
    let call = async |mut control: Control| control.add_member(request.clone()).await;
    let document = cluster.ask(call).await?;
    let membership: Membership = cluster.read(&document)?;
    let own = membership.members.iter().find(|m| m.name == part.name);
    let id = own.map(|own| own.id);
    let id = id.ok_or_else(|| MembershipError::Missing(part.name.clone()))?;
    let identity = Identity {
        cluster: name.clone(),
        role: Role::Member,
        name: part.name.to_string(),
    };
    let own = dir.join("members").join(part.name.as_str());
    let credentials: Credentials = authority.issue(&identity)?;
    credentials.save(&own)?;
    let config = MemberConfig {
        listen: part.address.to_string(),
        members: addresses(&membership.members),
        founders: membership.founders,
    };
    config::save(&own, &config)?;
    Ok(Added {
        cluster: name,
        id,
        member: Made {
            name: part.name.to_string(),
            address: part.address.to_string(),
            dir: own,
        },
        members: membership.members,
        notes: membership.notes,
    })
}

/// Takes members out, and answers when they are.
pub async fn remove(cluster: &mut Cluster, names: &[String]) -> Result<Membership, ClientError> {
    // A name that nobody has is an error, and one that is out when it is asked again is none.
    let call = async |mut control: Control| control.list_members(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let members: Vec<MemberView> = cluster.read_all(&documents)?;
    let known = |name: &&String| members.iter().any(|member| member.name.as_str() == **name);
    if let Some(member) = names.iter().find(|name| !known(name)) {
        let member = member.clone();
        return Err(ClientError::NoMember { member });
    }
    let request = RemoveMembersRequest {
        names: names.to_vec(),
    };
    let call = async |mut control: Control| control.remove_members(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Hands the lead to a member.
pub async fn transfer(cluster: &mut Cluster, name: &str) -> Result<Membership, ClientError> {
    let request = MemberRequest {
        name: name.to_owned(),
    };
    let call = async |mut control: Control| control.transfer_leader(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Brings the addresses in an admin's configuration directory up to date. Answers whether they
/// were not.
pub fn refresh(dir: &Path, members: &[MemberRecord]) -> Result<bool, ConfigError> {
    let mut config: AdminConfig = config::load(dir)?;
    let now = addresses(members);
    if now.is_empty() || config.members == now {
        return Ok(false);
    }
    config.members = now;
    config::save(dir, &config)?;
    Ok(true)
}

fn addresses(members: &[MemberRecord]) -> Vec<MemberAddress> {
    let address = |member: &MemberRecord| MemberAddress {
        id: member.id,
        name: member.name.clone(),
        address: member.address.clone(),
    };
    members.iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_an_admin_follow_the_members() {
        let dir = tempfile::TempDir::new().unwrap();
        let member = |id: u64| MemberRecord {
            id,
            name: MemberName::new(format!("m{id}")).unwrap(),
            address: format!("10.0.0.{id}:7400"),
        };
        let config = AdminConfig {
            members: addresses(&[member(1)]),
        };
        config::save(dir.path(), &config).unwrap();
        assert!(!refresh(dir.path(), &[]).unwrap(), "nobody is no answer");
        assert!(!refresh(dir.path(), &[member(1)]).unwrap());
        assert!(refresh(dir.path(), &[member(1), member(4)]).unwrap());
        let read: AdminConfig = config::load(dir.path()).unwrap();
        assert_eq!(read.members[1].address, "10.0.0.4:7400");
    }
}
