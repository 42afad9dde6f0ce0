//! A group with two hosts, and a container that moves from the one to the other.

use godwit_proto::{
    control::{ContainerRequest, MigrateRequest, RunRequest, control_client::ControlClient},
    document,
};
use godwit_types::{ContainerView, MigrationView};
use tonic::transport::Channel;

use super::{
    Group,
    agent::{Agent, Log},
    hosts, wait_for,
};

/// What is asked of whom when nothing fails.
pub const WAY: [&str; 9] = [
    "h1 check-source",
    "h2 check-destination",
    "h2 prepare",
    "h1 pre-copy",
    "h1 freeze",
    "h1 transfer",
    "h2 stage",
    "h2 resume",
    "h1 release",
];

pub struct Scene {
    pub group: Group,
    pub runtime: tokio::runtime::Runtime,
    pub log: Log,
    pub source: Agent,
    pub destination: Agent,
}

impl Scene {
    pub fn new(members: u64) -> Self {
        let group = Group::start(members, 1000);
        group.leader();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let log = Log::default();
        let (source, destination) = runtime.block_on(async {
            let agents = (
                Agent::start(&group, "h1", &log),
                Agent::start(&group, "h2", &log),
            );
            hosts_up(&group, 0).await;
            agents
        });
        Self {
            group,
            runtime,
            log,
            source,
            destination,
        }
    }

    pub fn agent(&self, host: &str) -> &Agent {
        if host == "h1" {
            &self.source
        } else {
            &self.destination
        }
    }
}

pub async fn hosts_up(group: &Group, at: usize) {
    wait_for("both hosts", || async {
        let views = hosts(&mut group.control(at)).await.ok()?;
        (views.iter().filter(|view| view.up).count() == 2).then_some(())
    })
    .await;
}

pub async fn run(control: &mut ControlClient<Channel>, name: &str) -> ContainerView {
    let request = RunRequest {
        name: name.to_owned(),
        image: "redis".to_owned(),
        host: "h1".to_owned(),
        ..RunRequest::default()
    };
    document::read(control.run(request).await.unwrap().get_ref()).unwrap()
}

pub async fn inspect(control: &mut ControlClient<Channel>, name: &str) -> ContainerView {
    let request = ContainerRequest {
        container: name.to_owned(),
    };
    document::read(control.inspect_container(request).await.unwrap().get_ref()).unwrap()
}

pub fn to_h2(name: &str) -> MigrateRequest {
    MigrateRequest {
        container: name.to_owned(),
        to: "h2".to_owned(),
        ..MigrateRequest::default()
    }
}

/// Migrates to the end and answers the last view.
pub async fn migrate(control: &mut ControlClient<Channel>, name: &str) -> MigrationView {
    let mut stream = control.migrate(to_h2(name)).await.unwrap().into_inner();
    let mut last: Option<MigrationView> = None;
    while let Some(item) = stream.message().await.unwrap() {
        last = Some(document::read(&item).unwrap());
    }
    last.unwrap()
}
