//! Members as programs: real processes that are killed, stopped and put to sleep, and members
//! that come and go.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use godwit_proto::{
    config::{self, MemberAddress, MemberConfig},
    control::{
        AddMemberRequest, CreateNetworkRequest, MemberRequest, RemoveMembersRequest,
        control_client::ControlClient,
    },
    document,
    tls::{self, Authority, Credentials, Role, Target},
    v1::Empty,
};
use godwit_types::{MemberName, MemberRole, MemberView, Membership};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Code, Status, transport::Channel};

use super::{CLUSTER, issue, networks};

/// The machine may be at other things, too.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Program {
    child: Child,
    stopped: bool,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    pub fn signal(&mut self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
        self.stopped = name == "STOP";
    }
}

/// A group that changes.
pub struct Programs {
    pub dir: TempDir,
    pub runtime: Runtime,
    authority: Authority,
    admin: Credentials,
    /// Every member that there ever was, by name.
    pub addresses: BTreeMap<String, MemberAddress>,
    pub running: BTreeMap<String, Program>,
}

impl Drop for Programs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.addresses.keys() {
                let said = self.said(name);
                let lines: Vec<&str> = said.lines().collect();
                let last = lines.len().saturating_sub(25);
                eprintln!("{name} said last:\n{}", lines[last..].join("\n"));
            }
        }
    }
}

/// Waits as long as a loaded machine may need.
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

impl Programs {
    /// So many founders, started.
    pub fn start(founders: u64) -> Self {
        tls::install_crypto();
        let (authority, _) = Authority::create(CLUSTER).unwrap();
        let admin = issue(&authority, Role::Admin, "root");
        let mut programs = Self {
            dir: tempfile::tempdir().unwrap(),
            runtime: Runtime::new().unwrap(),
            authority,
            admin,
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        let all: Vec<_> = (1..=founders)
            .map(|id| MemberAddress {
                id,
                name: MemberName::new(format!("m{id}")).unwrap(),
                address: free_address(),
            })
            .collect();
        for member in &all {
            programs.configure(member, all.clone(), Vec::new());
            programs.launch(member.name.as_str());
        }
        programs.leader();
        programs
    }

    fn configure(&mut self, own: &MemberAddress, members: Vec<MemberAddress>, founders: Vec<u64>) {
        let name = own.name.as_str();
        let dir = self.home(name);
        let credentials = issue(&self.authority, Role::Member, name);
        credentials.save(&dir).unwrap();
        let config = MemberConfig {
            listen: own.address.clone(),
            members,
            founders,
        };
        config::save(&dir, &config).unwrap();
        self.addresses.insert(name.to_owned(), own.clone());
    }

    pub fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.home(name).join("data")
    }

    /// What it has said since it was first started.
    pub fn said(&self, name: &str) -> String {
        fs::read_to_string(self.home(name).join("log")).unwrap_or_default()
    }

    pub fn command(&self, name: &str, data: &Path) -> Command {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home(name).join("log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_godwit-controller"));
        command
            .arg("--config")
            .arg(self.home(name))
            .arg("--data")
            .arg(data)
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    pub fn launch(&mut self, name: &str) {
        let command = self.command(name, &self.data(name));
        self.spawn(name, command);
    }

    pub fn spawn(&mut self, name: &str, mut command: Command) {
        let program = Program {
            child: command.spawn().unwrap(),
            stopped: false,
        };
        self.running.insert(name.to_owned(), program);
    }

    /// SIGKILL.
    pub fn kill(&mut self, name: &str) {
        drop(self.running.remove(name).unwrap());
    }

    /// SIGTERM; answers the exit code.
    pub fn stop(&mut self, name: &str) -> Option<i32> {
        self.running.get_mut(name).unwrap().signal("TERM");
        self.ended(name)
    }

    /// Waits until it ends by itself; answers the exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let program = self.running.get_mut(name).unwrap();
        let status = until(&format!("the end of {name}"), || {
            program.child.try_wait().unwrap()
        });
        self.running.remove(name);
        status.code()
    }

    pub fn control(&self, name: &str) -> ControlClient<Channel> {
        let _inside = self.runtime.enter();
        client(&self.admin, &self.addresses[name])
    }

    pub fn writer(&self) -> Writer {
        Writer {
            admin: self.admin.clone(),
            members: self.addresses.values().cloned().collect(),
        }
    }

    /// What one of those that run answers, as soon as one does.
    pub fn ask<T, F>(&self, what: &str, call: impl Fn(ControlClient<Channel>) -> F) -> T
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut turn = 0;
        until(what, || {
            let awake = self.running.iter().filter(|(_, program)| !program.stopped);
            let names: Vec<&String> = awake.map(|(name, _)| name).collect();
            turn += 1;
            let name = names[turn % names.len()];
            let control = self.control(name);
            let answer = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(30), call(control)).await
            });
            match answer {
                Ok(Ok(answer)) => Some(answer),
                Ok(Err(status)) if may_pass(&status) => None,
                Ok(Err(status)) => panic!("{what}: {status:?}"),
                Err(_) => None,
            }
        })
    }

    pub fn members(&self) -> Vec<MemberView> {
        let documents = self.ask("the members", async |mut control| {
            Ok(control.list_members(Empty {}).await?.into_inner())
        });
        document::read_all(&documents).unwrap()
    }

    pub fn leader(&self) -> String {
        until("a leader", || {
            let found = self.members().into_iter().find(|view| view.leader)?;
            Some(found.name.to_string())
        })
    }

    /// A member that is up and does not lead.
    pub fn follower(&self) -> String {
        let leader = self.leader();
        let names = self.running.keys();
        names
            .into_iter()
            .find(|name| **name != leader)
            .unwrap()
            .clone()
    }

    /// Makes a member known and configures it; it is not started.
    pub fn add(&mut self, name: &str, replaces: &str) -> Membership {
        let request = AddMemberRequest {
            name: name.to_owned(),
            address: free_address(),
            replaces: replaces.to_owned(),
        };
        let document = self.ask("a newcomer to be known", async |mut control| {
            Ok(control.add_member(request.clone()).await?.into_inner())
        });
        let membership: Membership = document::read(&document).unwrap();
        let all: Vec<_> = membership
            .members
            .iter()
            .map(|member| MemberAddress {
                id: member.id,
                name: member.name.clone(),
                address: member.address.clone(),
            })
            .collect();
        let own = all.iter().find(|m| m.name.as_str() == name).unwrap();
        self.configure(&own.clone(), all.clone(), membership.founders.clone());
        membership
    }

    pub fn remove(&self, names: &[&str]) -> Membership {
        let request = RemoveMembersRequest {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let document = self.ask("members to be out", async |mut control| {
            Ok(control.remove_members(request.clone()).await?.into_inner())
        });
        document::read(&document).unwrap()
    }

    pub fn transfer(&self, name: &str) {
        let request = MemberRequest {
            name: name.to_owned(),
        };
        self.ask("the lead to be handed over", async |mut control| {
            Ok(control.transfer_leader(request.clone()).await?.into_inner())
        });
    }

    /// Waits until these and no others have a vote, all of them up.
    pub fn voters(&self, names: &[&str]) {
        until(&format!("the votes of {names:?}"), || {
            let views = self.members();
            let up = views
                .iter()
                .filter(|view| view.role != MemberRole::Learner && view.reachable);
            let mut found: Vec<_> = up.map(|view| view.name.as_str().to_owned()).collect();
            found.sort();
            (found == names && views.len() == names.len()).then_some(())
        });
    }

    pub fn write(&self, count: usize) {
        let mut writer = self.writer();
        let names: Vec<&String> = self.running.keys().collect();
        for number in 0..count {
            let name = format!("w{}-{number}", next());
            let mut turn = number;
            until("a write", || {
                turn += 1;
                let at = names[turn % names.len()];
                match self.runtime.block_on(writer.write(at, &name)) {
                    Ok(()) => Some(()),
                    // By a member that ended before it could answer.
                    Err(status) if status.code() == Code::AlreadyExists => Some(()),
                    Err(_) => None,
                }
            });
        }
    }

    pub fn network_names(&self) -> Vec<String> {
        let views = self.ask("the networks", async |mut control| {
            networks(&mut control).await
        });
        views.iter().map(|view| view.name.to_string()).collect()
    }
}

/// Writes beside everything else.
#[derive(Clone)]
pub struct Writer {
    admin: Credentials,
    members: Vec<MemberAddress>,
}

impl Writer {
    /// A write that was answered is never lost.
    pub async fn write(&mut self, member: &str, name: &str) -> Result<(), Status> {
        let members = self.members.iter();
        let found = members.clone().find(|m| m.name.as_str() == member);
        let found = found.ok_or_else(|| Status::unavailable("not known"))?;
        let number = next();
        let request = CreateNetworkRequest {
            name: name.to_owned(),
            subnet: format!("10.{}.{}.0/28", 100 + number / 250, number % 250),
        };
        let mut control = client(&self.admin, found);
        let sent = control.create_network(request);
        match tokio::time::timeout(Duration::from_secs(5), sent).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::unavailable("no answer")),
        }
    }
}

fn next() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn client(admin: &Credentials, member: &MemberAddress) -> ControlClient<Channel> {
    let target = Target {
        address: member.address.clone(),
        cluster: CLUSTER.to_owned(),
        role: Role::Member,
        name: Some(member.name.to_string()),
    };
    ControlClient::new(tls::channel(admin.client_config().unwrap(), target))
}

/// The program that was asked is gone, or nobody leads yet.
pub fn may_pass(status: &Status) -> bool {
    let answered = godwit_proto::failure::problem(status).is_some();
    !answered && (status.code() == Code::Unavailable || std::error::Error::source(status).is_some())
}
