//! One member of the controller: a part of the Raft group, the gRPC services, and, when it is
//! elected, the leader's work.
//!
//! ```text
//!   control ──┐                        ┌── leader ── sessions ── dispatcher ── agents
//!             ├── member ── raft ── core
//!   raft rpc ─┘                        (decides nothing itself: `godwit-core` does)
//! ```

mod control;
mod dispatcher;
mod health;
mod ids;
mod leader;
mod member;
mod raft;
mod scope;

use std::{collections::BTreeSet, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use godwit_proto::{
    config::MemberConfig,
    limits,
    tls::{self, Credentials, CredentialsError, Role},
};
use godwit_types::{MemberName, MemberRecord};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};
use tonic::transport::Server;
use tracing::info;

pub use health::Health;

use crate::{member::Member, raft::Raft};

/// The log of Raft inside the data directory.
const STORE: &str = "raft.redb";
const SNAPSHOT_EVERY: u64 = 10_000;
/// Open streams end with the process: nobody is waited for longer.
const DRAIN: Duration = Duration::from_millis(300);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("credentials can't be used")]
    Credentials(#[from] CredentialsError),
    #[error("certificate is `{0}`, not a member's")]
    NotMember(String),
    #[error("member `{0}` is not among the members of its own configuration")]
    NotListed(String),
    #[error("member names and ids in the configuration are not unique")]
    NotUnique,
    #[error("can't make the data directory `{path}`")]
    Data {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't listen on `{address}`")]
    Listen {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Raft(#[from] raft::StartError),
}

/// What a test makes smaller than it is.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// A snapshot after so many entries.
    pub snapshot_every: u64,
    /// What of a large Raft message is sent at once, in bytes.
    pub part: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            snapshot_every: SNAPSHOT_EVERY,
            part: limits::RAFT_PART,
        }
    }
}

/// A running member.
pub struct Controller {
    raft: Arc<Raft>,
    name: MemberName,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    follower: JoinHandle<()>,
}

impl Controller {
    /// Opens the data directory, listens, and takes part in the group.
    pub async fn start(
        config: &MemberConfig,
        credentials: &Credentials,
        data: &Path,
    ) -> Result<Self, StartError> {
        let listener = tls::listen(&config.listen)
            .await
            .map_err(|source| StartError::Listen {
                address: config.listen.clone(),
                source,
            })?;
        Self::start_on(listener, config, credentials, data, Tuning::default()).await
    }

    /// The same on a socket that listens already, tuned as the caller wants.
    pub async fn start_on(
        listener: TcpListener,
        config: &MemberConfig,
        credentials: &Credentials,
        data: &Path,
        tuning: Tuning,
    ) -> Result<Self, StartError> {
        let identity = credentials.identity()?;
        if identity.role != Role::Member {
            return Err(StartError::NotMember(identity.to_string()));
        }
        let names: BTreeSet<&str> = config.members.iter().map(|m| m.name.as_str()).collect();
        let listed: Vec<u64> = config.members.iter().map(|member| member.id).collect();
        let distinct: BTreeSet<_> = listed.iter().collect();
        if names.len() != listed.len() || distinct.len() != listed.len() || listed.contains(&0) {
            return Err(StartError::NotUnique);
        }
        let own = config
            .members
            .iter()
            .find(|member| member.name.as_str() == identity.name)
            .ok_or_else(|| StartError::NotListed(identity.name.clone()))?;
        std::fs::create_dir_all(data).map_err(|source| StartError::Data {
            path: data.to_owned(),
            source,
        })?;
        let configured: Vec<MemberRecord> = config
            .members
            .iter()
            .map(|member| MemberRecord {
                id: member.id,
                name: member.name.clone(),
                address: member.address.clone(),
            })
            .collect();
        let peers: Vec<_> = configured
            .iter()
            .map(|member| raft::Peer {
                id: member.id,
                name: member.name.to_string(),
                address: member.address.clone(),
            })
            .collect();
        let founders = if config.founders.is_empty() {
            &listed
        } else {
            &config.founders
        };
        let client = credentials.client_config()?;
        let raft = Raft::start(&raft::Options {
            owner: raft::Owner {
                cluster: identity.cluster.clone(),
                member: own.name.to_string(),
                id: own.id,
            },
            founders,
            peers: &peers,
            address: &own.address,
            path: &data.join(STORE),
            client: client.clone(),
            tuning,
        })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen.clone(),
            source,
        })?;
        let (current_sender, current) = watch::channel(None);
        let member = Arc::new(Member {
            cluster: identity.cluster.clone(),
            configured: configured.clone(),
            raft: raft.clone(),
            client,
            current,
        });
        let follower = tokio::spawn(leader::follow(
            raft.clone(),
            identity.cluster.clone(),
            configured,
            current_sender,
        ));
        let (stop, mut stopped) = watch::channel(false);
        let server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(limits::SESSION_TIMEOUT))
            .http2_keepalive_timeout(Some(limits::SESSION_TIMEOUT))
            .add_service(raft::service(raft.clone(), peers))
            .add_service(dispatcher::service(member.clone()))
            .add_service(control::service(member))
            .serve_with_incoming_shutdown(
                tls::incoming(listener, credentials.server_config()?, identity.cluster),
                async move { drop(stopped.wait_for(|stopped| *stopped).await) },
            );
        info!(member = %own.name, %address, members = listed.len(), "member started");
        Ok(Self {
            raft,
            name: own.name.clone(),
            address,
            stop,
            server: tokio::spawn(server),
            follower,
        })
    }

    /// What it says of itself.
    pub fn health(&self) -> Health {
        Health(self.raft.clone())
    }

    pub fn name(&self) -> &MemberName {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether this member leads and has begun to.
    pub fn leads(&self) -> bool {
        self.raft.leadership().borrow().leading
    }

    /// Waits until this member can't take part any more, since its disk or its log failed or it
    /// was taken out, and answers why.
    pub async fn failed(&self) -> String {
        let reason = self.raft.ended().await;
        reason.unwrap_or_else(|| "raft found its log to be impossible".to_owned())
    }

    /// Hands the lead over, ends the streams, closes the log.
    pub async fn shutdown(self) {
        self.raft.stop(true).await;
        // The end of the thread ends the lead, and with it the streams of agents.
        let _ = timeout(DRAIN, self.follower).await;
        self.stop.send_replace(true);
        let mut server = self.server;
        if timeout(DRAIN, &mut server).await.is_err() {
            server.abort();
        }
        info!(member = %self.name, "member stopped");
    }

    /// Ends the log's thread and nothing else: for tests of a member that vanishes.
    pub async fn halt(self) {
        self.raft.stop(false).await;
        self.server.abort();
        self.follower.abort();
    }
}
