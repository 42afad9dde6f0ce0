//! A real group on loopback for the tests: real TLS, real disks, one runtime for each member,
//! so that a member can vanish as a process does.

#![allow(dead_code)]

pub mod agent;
pub mod programs;
pub mod scene;

use std::{
    future::Future,
    net::TcpListener,
    time::{Duration, Instant},
};

use godwit_controller::{Controller, Tuning};
use godwit_proto::{
    config::{MemberAddress, MemberConfig},
    control::control_client::ControlClient,
    document,
    tls::{self, Authority, Credentials, Identity, Role, Target},
    v1::{Documents, Empty},
};
use godwit_types::{ContainerView, HostView, MemberName, MemberView, MigrationView, NetworkView};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

pub const CLUSTER: &str = "blue";

pub struct Running {
    runtime: Runtime,
    controller: Controller,
}

pub struct Group {
    pub authority: Authority,
    pub members: Vec<MemberAddress>,
    pub running: Vec<Option<Running>>,
    data: TempDir,
    snapshot_every: u64,
    admin: Credentials,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl Group {
    pub fn start(count: u64, snapshot_every: u64) -> Self {
        tls::install_crypto();
        let (authority, _) = Authority::create(CLUSTER).unwrap();
        let listeners: Vec<_> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let members = (1..=count)
            .zip(&listeners)
            .map(|(id, listener)| MemberAddress {
                id,
                name: MemberName::new(format!("m{id}")).unwrap(),
                address: listener.local_addr().unwrap().to_string(),
            })
            .collect();
        let admin = issue(&authority, Role::Admin, "root");
        let mut group = Self {
            authority,
            members,
            running: (0..count).map(|_| None).collect(),
            data: tempfile::tempdir().unwrap(),
            snapshot_every,
            admin,
        };
        for (at, listener) in listeners.into_iter().enumerate() {
            group.launch(at, listener);
        }
        group
    }

    fn launch(&mut self, at: usize, listener: TcpListener) {
        let config = MemberConfig {
            listen: self.members[at].address.clone(),
            members: self.members.clone(),
            founders: Vec::new(),
        };
        let name = self.members[at].name.to_string();
        let credentials = issue(&self.authority, Role::Member, &name);
        let data = self.data.path().join(name);
        let tuning = Tuning {
            snapshot_every: self.snapshot_every,
            // So that every snapshot goes in parts.
            part: 1 << 10,
        };
        let runtime = runtime();
        listener.set_nonblocking(true).unwrap();
        let controller = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            Controller::start_on(listener, &config, &credentials, &data, tuning)
                .await
                .unwrap()
        });
        self.running[at] = Some(Running {
            runtime,
            controller,
        });
    }

    /// A member that was stopped or killed, on its old address and disk.
    pub fn restart(&mut self, at: usize) {
        let address = self.members[at].address.clone();
        let listener = wait("the old port", || TcpListener::bind(&address).ok());
        self.launch(at, listener);
    }

    /// Gone without a word.
    pub fn kill(&mut self, at: usize) {
        let Running {
            runtime,
            controller,
        } = self.running[at].take().unwrap();
        runtime.block_on(controller.halt());
        runtime.shutdown_background();
    }

    /// As by SIGTERM.
    pub fn stop(&mut self, at: usize) {
        let Running {
            runtime,
            controller,
        } = self.running[at].take().unwrap();
        runtime.block_on(controller.shutdown());
        runtime.shutdown_background();
    }

    /// The member that leads, as soon as one does.
    pub fn leader(&self) -> usize {
        wait("a leader", || {
            self.running
                .iter()
                .position(|r| r.as_ref().is_some_and(|r| r.controller.leads()))
        })
    }

    pub fn follower(&self) -> usize {
        let leader = self.leader();
        let mut at = 0..self.running.len();
        at.find(|at| *at != leader && self.running[*at].is_some())
            .unwrap()
    }

    /// Asks this member as an admin. To be called inside a runtime.
    pub fn control(&self, at: usize) -> ControlClient<Channel> {
        let target = Target {
            address: self.members[at].address.clone(),
            cluster: CLUSTER.to_owned(),
            role: Role::Member,
            name: Some(self.members[at].name.to_string()),
        };
        let config = self.admin.client_config().unwrap();
        ControlClient::new(tls::channel(config, target))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for at in 0..self.running.len() {
            if self.running[at].is_some() {
                self.kill(at);
            }
        }
    }
}

pub fn issue(authority: &Authority, role: Role, name: &str) -> Credentials {
    let identity = Identity {
        cluster: CLUSTER.to_owned(),
        role,
        name: name.to_owned(),
    };
    authority.issue(&identity).unwrap()
}

/// Waits for a level, with a deadline.
pub fn wait<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same for something that is asked.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ready: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = ready().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited 20 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn all<T: DeserializeOwned>(documents: tonic::Response<Documents>) -> Vec<T> {
    document::read_all(&documents.into_inner()).unwrap()
}

pub async fn hosts(control: &mut ControlClient<Channel>) -> Result<Vec<HostView>, tonic::Status> {
    Ok(all(control.list_hosts(Empty {}).await?))
}

pub async fn networks(
    control: &mut ControlClient<Channel>,
) -> Result<Vec<NetworkView>, tonic::Status> {
    Ok(all(control.list_networks(Empty {}).await?))
}

pub async fn members(control: &mut ControlClient<Channel>) -> Vec<MemberView> {
    all(control.list_members(Empty {}).await.unwrap())
}

pub async fn containers(control: &mut ControlClient<Channel>) -> Vec<ContainerView> {
    all(control.list_containers(Empty {}).await.unwrap())
}

pub async fn migrations(
    control: &mut ControlClient<Channel>,
) -> Result<Vec<MigrationView>, tonic::Status> {
    Ok(all(control.list_migrations(Empty {}).await?))
}
