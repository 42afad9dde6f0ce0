//! The first files of a new cluster: its authority, and for every part a configuration directory
//! that is complete.
//!
//! ```text
//! DIR/ca/{ca.pem,ca.key}           who has the key can make any part: keep it off the machines
//! DIR/members/NAME/{config.json,ca.pem,cert.pem,key.pem}
//! DIR/hosts/NAME/…                 the same four
//! DIR/admin/…                      the same four
//! ```
//!
//! All of it is made under another name beside DIR and renamed at the end, so that DIR holds a
//! whole cluster or nothing.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use godwit_proto::{
    config::{self, AdminConfig, AgentConfig, ConfigError, MemberAddress, MemberConfig},
    tls::{Authority, AuthorityError, CredentialsError, Identity, Role},
};
use godwit_types::{HostName, MemberName};
use serde::Serialize;

pub use crate::address::Part;

/// The name that the first admin's certificate carries.
const ADMIN: &str = "admin";

/// What the cluster shall consist of.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub name: String,
    /// In the order of their Raft ids, which begin at 1.
    pub members: Vec<Part<MemberName>>,
    pub hosts: Vec<Part<HostName>>,
}

/// A part's configuration directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    pub name: String,
    pub address: String,
    pub dir: PathBuf,
}

/// Where everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MadeCluster {
    pub cluster: String,
    pub ca: PathBuf,
    pub admin: PathBuf,
    pub members: Vec<Made>,
    pub hosts: Vec<Made>,
}

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(
        "cluster name `{0}` is not valid: 1 to 63 of letters, digits, `_`, `.` and `-`, the first a letter or digit"
    )]
    Name(String),
    #[error("{0} members: a cluster has 1, 3 or 5, since a majority of them must agree")]
    MemberCount(usize),
    #[error("a cluster needs at least one host")]
    NoHosts,
    #[error("{what} `{name}` is given twice")]
    DuplicateName { what: &'static str, name: String },
    #[error("address {address} is given to both `{first}` and `{second}`")]
    DuplicateAddress {
        address: String,
        first: String,
        second: String,
    },
    #[error("host `{0}` needs an IPv4 address: networks between hosts run over it")]
    HostAddress(String),
    #[error("`{0}` exists and is not empty")]
    NotEmpty(PathBuf),
    #[error("`{0}` can't be made: give a directory that does not exist")]
    NoDirectory(PathBuf),
    #[error("can't write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Makes the cluster's files in `dir`, which does not exist or is empty.
pub fn init(dir: &Path, plan: &ClusterPlan) -> Result<MadeCluster, InitError> {
    check(plan)?;
    check_empty(dir)?;
    let building = beside(dir)?;
    let built = build(&building, plan).and_then(|()| {
        fs::rename(&building, dir).map_err(|source| InitError::Write {
            path: dir.into(),
            source,
        })
    });
    if let Err(error) = built {
        // Half a cluster is of no use; a failure to remove it would hide why it is half.
        let _ = fs::remove_dir_all(&building);
        return Err(error);
    }
    Ok(made(dir, plan))
}

fn check(plan: &ClusterPlan) -> Result<(), InitError> {
    // A cluster's name stands in identities and has the form of every other name.
    if HostName::new(plan.name.as_str()).is_err() {
        return Err(InitError::Name(plan.name.chars().take(80).collect()));
    }
    if ![1, 3, 5].contains(&plan.members.len()) {
        return Err(InitError::MemberCount(plan.members.len()));
    }
    if plan.hosts.is_empty() {
        return Err(InitError::NoHosts);
    }
    no_name_twice("member", plan.members.iter().map(|part| part.name.as_str()))?;
    no_name_twice("host", plan.hosts.iter().map(|part| part.name.as_str()))?;
    if let Some(host) = plan.hosts.iter().find(|host| !host.address.is_ipv4()) {
        return Err(InitError::HostAddress(host.name.to_string()));
    }
    let members = plan
        .members
        .iter()
        .map(|part| (part.address, part.name.as_str()));
    let hosts = plan
        .hosts
        .iter()
        .map(|part| (part.address, part.name.as_str()));
    let mut owners = BTreeMap::new();
    for (address, name) in members.chain(hosts) {
        if let Some(first) = owners.insert(address, name) {
            return Err(InitError::DuplicateAddress {
                address: address.to_string(),
                first: first.to_owned(),
                second: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn no_name_twice<'a>(
    what: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), InitError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(InitError::DuplicateName {
                what,
                name: name.to_owned(),
            });
        }
    }
    Ok(())
}

fn check_empty(dir: &Path) -> Result<(), InitError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(InitError::NotEmpty(dir.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(InitError::Write {
            path: dir.into(),
            source,
        }),
    }
}

/// The directory to build in: on the same file system, since it is renamed.
fn beside(dir: &Path) -> Result<PathBuf, InitError> {
    let name = dir
        .file_name()
        .ok_or_else(|| InitError::NoDirectory(dir.into()))?;
    let mut building = OsString::from(".");
    building.push(name);
    building.push(format!(".{}", std::process::id()));
    Ok(dir.with_file_name(building))
}

fn build(dir: &Path, plan: &ClusterPlan) -> Result<(), InitError> {
    private_dir(dir)?;
    let (authority, key) = Authority::create(&plan.name)?;
    let ca = dir.join("ca");
    private_dir(&ca)?;
    write(&ca.join("ca.pem"), authority.certificate_pem(), 0o644)?;
    write(&ca.join("ca.key"), &key, 0o600)?;

    let members = addresses(&plan.members);
    for member in &plan.members {
        let config = MemberConfig {
            listen: member.address.to_string(),
            members: members.clone(),
            founders: Vec::new(),
        };
        let name = member.name.as_str();
        let dir = dir.join("members").join(name);
        part(&dir, &authority, plan, Role::Member, name, &config)?;
    }
    for host in &plan.hosts {
        let config = AgentConfig {
            listen: host.address.to_string(),
            members: members.clone(),
        };
        let name = host.name.as_str();
        let dir = dir.join("hosts").join(name);
        part(&dir, &authority, plan, Role::Host, name, &config)?;
    }
    let config = AdminConfig { members };
    part(
        &dir.join("admin"),
        &authority,
        plan,
        Role::Admin,
        ADMIN,
        &config,
    )
}

fn addresses(members: &[Part<MemberName>]) -> Vec<MemberAddress> {
    members
        .iter()
        .zip(1..)
        .map(|(member, id)| MemberAddress {
            id,
            name: member.name.clone(),
            address: member.address.to_string(),
        })
        .collect()
}

fn part<C: Serialize>(
    dir: &Path,
    authority: &Authority,
    plan: &ClusterPlan,
    role: Role,
    name: &str,
    config: &C,
) -> Result<(), InitError> {
    let identity = Identity {
        cluster: plan.name.clone(),
        role,
        name: name.to_owned(),
    };
    authority.issue(&identity)?.save(dir)?;
    config::save(dir, config)?;
    Ok(())
}

fn private_dir(dir: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| InitError::Write {
            path: dir.into(),
            source,
        })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), InitError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| InitError::Write {
            path: path.into(),
            source,
        })
}

fn made(dir: &Path, plan: &ClusterPlan) -> MadeCluster {
    let place = |folder: &str, name: &str, address: std::net::SocketAddr| Made {
        name: name.to_owned(),
        address: address.to_string(),
        dir: dir.join(folder).join(name),
    };
    MadeCluster {
        cluster: plan.name.clone(),
        ca: dir.join("ca"),
        admin: dir.join("admin"),
        members: plan
            .members
            .iter()
            .map(|part| place("members", part.name.as_str(), part.address))
            .collect(),
        hosts: plan
            .hosts
            .iter()
            .map(|part| place("hosts", part.name.as_str(), part.address))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use godwit_proto::tls::{self, Credentials};
    use tempfile::TempDir;

    use super::*;

    fn plan(members: usize) -> ClusterPlan {
        ClusterPlan {
            name: "blue".into(),
            members: (1..=members)
                .map(|n| format!("m{n}=10.0.0.{n}:7400").parse().unwrap())
                .collect(),
            hosts: (1..=2)
                .map(|n| format!("h{n}=10.0.0.{n}:7401").parse().unwrap())
                .collect(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn every_part_gets_its_identity_and_its_configuration() {
        tls::install_crypto();
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("blue");
        let made = init(&root, &plan(3)).unwrap();

        let member: MemberConfig = config::load(&made.members[1].dir).unwrap();
        assert_eq!(member.listen, "10.0.0.2:7400");
        let ids: Vec<_> = member
            .members
            .iter()
            .map(|m| (m.id, m.name.as_str()))
            .collect();
        assert_eq!(ids, [(1, "m1"), (2, "m2"), (3, "m3")]);
        let agent: AgentConfig = config::load(&root.join("hosts/h1")).unwrap();
        assert_eq!(
            (agent.listen.as_str(), agent.members.len()),
            ("10.0.0.1:7401", 3)
        );
        let admin: AdminConfig = config::load(&made.admin).unwrap();
        assert_eq!(admin.members, member.members);

        for (part, identity) in [
            ("admin", "godwit://blue/admin/admin"),
            ("members/m3", "godwit://blue/member/m3"),
            ("hosts/h2", "godwit://blue/host/h2"),
        ] {
            let credentials = Credentials::load(&root.join(part)).unwrap();
            assert_eq!(credentials.identity().unwrap().to_string(), identity);
            credentials.client_config().unwrap();
            credentials.server_config().unwrap();
            assert_eq!(mode(&root.join(part).join("key.pem")), 0o600);
        }
        assert_eq!((mode(&root), mode(&root.join("ca/ca.key"))), (0o700, 0o600));
        let read = |name| fs::read_to_string(root.join(name)).unwrap();
        Authority::load(&read("ca/ca.pem"), &read("ca/ca.key")).unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn an_empty_directory_is_taken_and_a_full_one_is_not() {
        let dir = TempDir::new().unwrap();
        init(&dir.path().join("a"), &plan(1)).unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        init(&dir.path().join("b"), &plan(1)).unwrap();
        let key = fs::read(dir.path().join("a/ca/ca.key")).unwrap();
        let error = init(&dir.path().join("a"), &plan(1)).unwrap_err();
        assert!(matches!(error, InitError::NotEmpty(_)), "{error}");
        assert_eq!(fs::read(dir.path().join("a/ca/ca.key")).unwrap(), key);
    }

    #[test]
    fn a_plan_that_could_not_work_is_refused_before_anything_is_written() {
        let dir = TempDir::new().unwrap();
        let refused = |plan: &ClusterPlan| {
            let error = init(&dir.path().join("c"), plan).unwrap_err();
            assert!(!dir.path().join("c").exists());
            error.to_string()
        };
        for count in [0, 2, 4, 6] {
            assert!(refused(&plan(count)).starts_with(&format!("{count} members")));
        }
        let mut twice = plan(3);
        twice.members[2].name = twice.members[0].name.clone();
        assert_eq!(refused(&twice), "member `m1` is given twice");
        let mut shared = plan(1);
        shared.hosts[1].address = shared.members[0].address;
        assert_eq!(
            refused(&shared),
            "address 10.0.0.1:7400 is given to both `m1` and `h2`"
        );
        let mut hostless = plan(1);
        hostless.hosts.clear();
        assert_eq!(refused(&hostless), "a cluster needs at least one host");
        let mut six = plan(1);
        six.hosts[0].address = "[fd00::1]:7401".parse().unwrap();
        assert!(refused(&six).contains("IPv4"));
        let mut crooked = plan(1);
        crooked.name = "a/b".into();
        assert!(refused(&crooked).contains("`a/b`"));
    }
}
