//! The program itself: its arguments, its end by signals, and a leader that is killed.

mod harness;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use godwit_proto::{
    config::{self, MemberAddress, MemberConfig},
    control::control_client::ControlClient,
    tls::{self, Authority, Credentials, Role, Target},
};
use godwit_types::MemberName;
use harness::{CLUSTER, issue, members, networks, wait, wait_for};
use tonic::transport::Channel;

struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Member {
    fn start(dir: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_godwit-controller"))
            .arg("--config")
            .arg(dir)
            .arg("--data")
            .arg(dir.join("data"))
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn terminate(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
    }

    /// The exit code, within two seconds.
    fn ended(&mut self) -> Option<i32> {
        let began = Instant::now();
        let status = wait("the end", || self.0.try_wait().unwrap());
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        status.code()
    }
}

fn control(admin: &Credentials, member: &MemberAddress) -> ControlClient<Channel> {
    let target = Target {
        address: member.address.clone(),
        cluster: CLUSTER.to_owned(),
        role: Role::Member,
        name: Some(member.name.to_string()),
    };
    ControlClient::new(tls::channel(admin.client_config().unwrap(), target))
}

fn configure(dir: &Path, authority: &Authority, role: Role) -> Vec<MemberAddress> {
    // Bound and let go: nobody else is given them in the moment until they are bound again.
    let listeners: Vec<_> = (0..3)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let all: Vec<_> = (1..=3)
        .zip(&listeners)
        .map(|(id, listener)| MemberAddress {
            id,
            name: MemberName::new(format!("m{id}")).unwrap(),
            address: listener.local_addr().unwrap().to_string(),
        })
        .collect();
    for member in &all {
        let own = dir.join(member.name.as_str());
        let credentials = issue(authority, role, member.name.as_str());
        credentials.save(&own).unwrap();
        let config = MemberConfig {
            listen: member.address.clone(),
            members: all.clone(),
            founders: Vec::new(),
        };
        config::save(&own, &config).unwrap();
    }
    all
}

#[test]
fn a_killed_leader_is_replaced_and_a_stopped_one_ends_well() {
    tls::install_crypto();
    let dir = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::create(CLUSTER).unwrap();
    let all = configure(dir.path(), &authority, Role::Member);
    let admin = issue(&authority, Role::Admin, "root");
    let mut running: Vec<_> = all
        .iter()
        .map(|member| Some(Member::start(&dir.path().join(member.name.as_str()))))
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.block_on(async {
        wait_for("a leader", || async {
            networks(&mut control(&admin, &all[0])).await.ok()
        })
        .await;
        let views = members(&mut control(&admin, &all[0])).await;
        views.iter().position(|view| view.leader).unwrap()
    });
    // SIGKILL
    running[leader] = None;
    let other = (leader + 1) % 3;
    let began = Instant::now();
    runtime.block_on(async {
        wait_for("the next leader", || async {
            networks(&mut control(&admin, &all[other])).await.ok()
        })
        .await;
    });
    println!("served again after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    for mut member in running.into_iter().flatten() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", member.0.id()));
        let status = status.unwrap_or_default();
        println!(
            "{:?}",
            status.lines().find(|line| line.starts_with("VmRSS"))
        );
        member.terminate();
        assert_eq!(member.ended(), Some(0));
    }
}

#[test]
fn who_is_no_member_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, _) = Authority::create(CLUSTER).unwrap();
    let all = configure(dir.path(), &authority, Role::Host);
    let mut member = Member::start(&dir.path().join(all[0].name.as_str()));
    assert_eq!(member.ended(), Some(1));
}
