//! One way to the cluster: whichever member answers.
//!
//! Every member serves the whole of `Control`, so the members of the configuration are tried in
//! turn. A call that changes nothing when it is repeated ([`Cluster::ask`]) is tried again while
//! the group has no leader; one that must happen once ([`Cluster::order`]) waits for a leader
//! first and is then sent once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use godwit_proto::{
    config::{self, AdminConfig, ConfigError},
    control::control_client::ControlClient,
    document, failure, limits,
    tls::{Credentials, Role},
    v1::{Document, Documents, Empty},
};
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tonic::{Response, Status, transport::Channel};

use crate::{
    door::{Door, Local},
    error::{ClientError, Tried, is_unconnected},
};

/// How long a group without a leader is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// The generated client of one member.
pub type Control = ControlClient<Channel>;

/// Whom the credentials of a configuration directory trust.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The cluster's name.
    pub name: String,
    /// The certificate of its authority, as PEM.
    pub authority: String,
}

/// A cluster and the credentials for it.
pub struct Cluster {
    doors: Vec<Door>,
    trust: Option<Trust>,
    /// The one to try first: the last that answered, or the one after the last that failed.
    first: usize,
    channel: Option<(usize, Channel)>,
}

impl Cluster {
    /// Reads a configuration directory. Connects to nothing.
    pub fn open(dir: &Path) -> Result<Self, ClientError> {
        let config: AdminConfig = config::load(dir).map_err(|error| match error {
            ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ClientError::NoConfig { dir: dir.into() }
            }
            other => other.into(),
        })?;
        let credentials = Credentials::load(dir)?;
        let identity = credentials.identity()?;
        if identity.role != Role::Admin {
            return Err(ClientError::Role {
                dir: dir.into(),
                role: identity.role,
            });
        }
        if config.members.is_empty() {
            return Err(ClientError::NoMembers { dir: dir.into() });
        }
        let tls = credentials.client_config()?;
        let members = config.members.into_iter().map(|member| Door::Member {
            member,
            cluster: identity.cluster.clone(),
            tls: tls.clone(),
        });
        Ok(Self {
            trust: Some(Trust {
                name: identity.cluster.clone(),
                authority: credentials.authority,
            }),
            doors: members.collect(),
            first: 0,
            channel: None,
        })
    }

    /// The cluster of a daemon on this machine, with what the daemon's socket allows.
    pub fn local(socket: &Local) -> Self {
        Self {
            doors: vec![Door::Socket(socket.path().into())],
            trust: None,
            first: 0,
            channel: None,
        }
    }

    /// Whom the credentials trust. None: a local socket, whose daemon has them.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// A call that can be repeated: while the group has no leader, it is.
    pub async fn ask<T>(
        &mut self,
        call: impl AsyncFn(Control) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.once(&call).await {
                Err(error) if error.may_pass() && Instant::now() < deadline => sleep(PAUSE).await,
                other => return other,
            }
        }
    }

    /// A call that must not be made twice: it is sent once, when there is a leader to take it.
    pub async fn order<T>(
        &mut self,
        call: impl AsyncFn(Control) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        self.ask(async |mut control: Control| control.list_members(Empty {}).await)
            .await?;
        self.once(&call).await
    }

    /// Reads the value that a call answered.
    pub fn read<T: DeserializeOwned>(&self, document: &Document) -> Result<T, ClientError> {
        document::read(document).map_err(|source| self.unreadable(source))
    }

    pub fn read_all<T: DeserializeOwned>(
        &self,
        documents: &Documents,
    ) -> Result<Vec<T>, ClientError> {
        document::read_all(documents).map_err(|source| self.unreadable(source))
    }

    /// Sorts a status that a stream ended with, and turns to another member if that may help.
    pub fn stream_failed(&mut self, status: Status) -> ClientError {
        let error = ClientError::of_status(&self.doors[self.first].name(), status);
        self.turn_from(self.first, &error);
        error
    }

    async fn once<T>(
        &mut self,
        call: &impl AsyncFn(Control) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let mut tried = Vec::new();
        for turn in 0..self.doors.len() {
            let index = (self.first + turn) % self.doors.len();
            let reason = match self.control(index).await {
                Ok(control) => match call(control).await {
                    Ok(response) => {
                        self.first = index;
                        return Ok(response.into_inner());
                    }
                    Err(status) if is_unconnected(&status) => connect_reason(&status),
                    Err(status) => {
                        let name = self.doors[index].name();
                        let error = ClientError::of_status(&name, status);
                        self.turn_from(index, &error);
                        return Err(error);
                    }
                },
                Err(reason) => reason,
            };
            self.channel = None;
            tried.push(Tried {
                member: self.doors[index].name(),
                address: self.doors[index].address(),
                reason,
            });
        }
        Err(ClientError::Unreachable { tried })
    }

    async fn control(&mut self, index: usize) -> Result<Control, String> {
        let channel = match &self.channel {
            Some((of, channel)) if *of == index => channel.clone(),
            _ => {
                let channel = self.doors[index].open().await?;
                self.channel = Some((index, channel.clone()));
                channel
            }
        };
        Ok(ControlClient::new(channel).max_decoding_message_size(limits::MESSAGE))
    }

    fn turn_from(&mut self, index: usize, error: &ClientError) {
        if error.may_pass() {
            self.first = (index + 1) % self.doors.len();
            self.channel = None;
        } else {
            self.first = index;
        }
    }

    fn unreadable(&self, source: document::DocumentError) -> ClientError {
        ClientError::Document {
            member: self.doors[self.first].name(),
            source,
        }
    }
}

/// The innermost cause: the layers above it only say that connecting failed.
fn connect_reason(status: &Status) -> String {
    let mut error: &(dyn std::error::Error + 'static) = status;
    while let Some(source) = error.source() {
        error = source;
    }
    failure::chain(error)
}

#[cfg(test)]
mod tests {
    use godwit_types::MemberName;
    use tempfile::TempDir;
    use tokio::net::TcpListener;

    use godwit_proto::tls;

    use super::*;
    use crate::cluster::{ClusterPlan, Part, init};

    fn plan(members: &[String]) -> ClusterPlan {
        ClusterPlan {
            name: "blue".into(),
            members: members
                .iter()
                .enumerate()
                .map(|(n, address)| Part {
                    name: MemberName::new(format!("m{}", n + 1)).unwrap(),
                    address: address.parse().unwrap(),
                })
                .collect(),
            hosts: vec!["h1=10.9.9.9:7401".parse().unwrap()],
        }
    }

    async fn error_of(members: &[String]) -> ClientError {
        tls::install_crypto();
        let dir = TempDir::new().unwrap();
        init(&dir.path().join("c"), &plan(members)).unwrap();
        let mut cluster = Cluster::open(&dir.path().join("c/admin")).unwrap();
        cluster
            .order(async |mut control: Control| control.list_hosts(Empty {}).await)
            .await
            .unwrap_err()
    }

    #[tokio::test]
    async fn members_that_are_gone_or_speak_no_tls_are_all_named() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone_address = gone.local_addr().unwrap().to_string();
        drop(gone);
        let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let deaf_address = deaf.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            // The probe, then the handshake: both are closed at once.
            while deaf.accept().await.is_ok() {}
        });
        let third = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let third_address = third.local_addr().unwrap().to_string();
        drop(third);

        let error = error_of(&[gone_address.clone(), deaf_address, third_address]).await;
        let ClientError::Unreachable { tried } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(tried.len(), 3);
        assert_eq!(tried[0].address, gone_address);
        assert_eq!(tried[0].reason, "connection refused");
        assert!(!tried[1].reason.is_empty(), "{tried:?}");
    }

    #[test]
    fn a_directory_without_configuration_says_so() {
        let dir = TempDir::new().unwrap();
        let error = Cluster::open(dir.path()).err().unwrap();
        assert!(matches!(error, ClientError::NoConfig { .. }), "{error:?}");
    }

    #[test]
    fn an_agents_credentials_are_not_an_admins() {
        tls::install_crypto();
        let dir = TempDir::new().unwrap();
        init(&dir.path().join("c"), &plan(&["127.0.0.1:7400".into()])).unwrap();
        let error = Cluster::open(&dir.path().join("c/hosts/h1")).err().unwrap();
        assert!(
            matches!(
                error,
                ClientError::Role {
                    role: Role::Host,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}
