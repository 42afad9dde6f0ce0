//! What every service of this member needs: who we are, who leads, and ways to the others.

use std::{sync::Arc, time::Duration};

use godwit_proto::{
    control::control_client::ControlClient,
    limits,
    tls::{self, Role, Target},
};
use godwit_types::{HostName, MemberRecord};
use tokio::sync::watch;
use tonic::{Status, transport::Channel};

use crate::{
    leader::{Leader, members::known},
    raft::Raft,
};

/// How long a request waits for a leader to be elected.
pub const PATIENCE: Duration = Duration::from_secs(3);

pub struct Member {
    pub cluster: String,
    /// The members as the configuration names them.
    pub configured: Vec<MemberRecord>,
    pub raft: Arc<Raft>,
    pub client: Arc<rustls::ClientConfig>,
    pub current: watch::Receiver<Option<Arc<Leader>>>,
}

/// Where a request is answered.
pub enum Place {
    Here(Arc<Leader>),
    There(ControlClient<Channel>),
}

impl Member {
    /// The lead of this member, if it has it.
    pub fn leader(&self) -> Option<Arc<Leader>> {
        self.current.borrow().clone()
    }

    /// The members as far as this one knows.
    pub fn members(&self) -> Vec<MemberRecord> {
        known(&self.raft.state().members, &self.configured)
    }

    fn other_leader(&self) -> Option<MemberRecord> {
        let leader = self.raft.leadership().borrow().leader?;
        let mut members = self.members().into_iter();
        members.find(|member| member.id == leader && member.id != self.raft.id())
    }

    /// `address:port` of another member that leads.
    pub fn leader_address(&self) -> Option<String> {
        self.other_leader().map(|member| member.address)
    }

    /// Finds the leader, waiting a little for one. A request that was forwarded to us is not
    /// forwarded again.
    pub async fn place(&self, forwarded: bool) -> Result<Place, Status> {
        let mut current = self.current.clone();
        let mut leadership = self.raft.leadership();
        let search = async {
            loop {
                if let Some(leader) = current.borrow_and_update().clone() {
                    return Some(Place::Here(leader));
                }
                leadership.borrow_and_update();
                if !forwarded && let Some(member) = self.other_leader() {
                    return Some(Place::There(self.control(&member)));
                }
                let changed = tokio::select! {
                    changed = current.changed() => changed,
                    changed = leadership.changed() => changed,
                };
                changed.ok()?;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) => Err(Status::unavailable("this member is stopping")),
            Err(_) => Err(Status::unavailable(format!(
                "no leader in {} s: are more than half of the {} members running?",
                PATIENCE.as_secs(),
                self.members().len()
            ))),
        }
    }

    fn control(&self, member: &MemberRecord) -> ControlClient<Channel> {
        let target = Target {
            address: member.address.clone(),
            cluster: self.cluster.clone(),
            role: Role::Member,
            name: Some(member.name.to_string()),
        };
        ControlClient::new(tls::channel(self.client.clone(), target))
            .max_decoding_message_size(limits::MESSAGE)
    }

    /// A channel to a host's agent.
    pub fn host(&self, name: &HostName, address: &str) -> Channel {
        let target = Target {
            address: address.to_owned(),
            cluster: self.cluster.clone(),
            role: Role::Host,
            name: Some(name.to_string()),
        };
        tls::channel(self.client.clone(), target)
    }
}
