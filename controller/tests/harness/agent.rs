//! An agent that keeps to the protocol and does nothing: it answers from a script and writes
//! down what it was asked. What real agents do is proven elsewhere, with real ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use godwit_proto::{
    agent::{
        FromAgent, Hello, Result as AgentResult, dispatcher_client::DispatcherClient, from_agent,
        result, to_agent,
    },
    document,
    tls::{self, Credentials, Role, Target},
};
use godwit_types::{
    AgentCommand, AgentReport, ByteSize, CgroupMode, CommandFailure, ContainerId, Digest, Estimate,
    Exit, FailureKind, FreezeStep, Generation, HostFacts, ImageSummary, InstanceReport,
    InstanceState, MigrationId, NetworkTable, OperationId, Outcome, Progress, ProgressReport,
    Round, Verb,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{CLUSTER, Group, issue};

#[derive(Default)]
struct Inner {
    asked: Vec<String>,
    operations: BTreeMap<String, BTreeSet<OperationId>>,
    done: BTreeMap<OperationId, Result<Outcome, CommandFailure>>,
    instances: BTreeMap<ContainerId, (Generation, InstanceState)>,
    tables: BTreeMap<String, NetworkTable>,
    failing: Option<(&'static str, FailureKind)>,
    estimate: Estimate,
    /// Its sessions are over, and none begins.
    down: bool,
    rounds: Vec<Round>,
    session: Option<mpsc::Sender<FromAgent>>,
}

#[derive(Clone)]
pub struct Agent {
    pub name: String,
    inner: Arc<Mutex<Inner>>,
    /// Commands of this name are answered only after it was set to None.
    held: Arc<watch::Sender<Option<&'static str>>>,
    log: Arc<Mutex<Vec<String>>>,
}

pub type Log = Arc<Mutex<Vec<String>>>;

impl Agent {
    /// Starts it in the runtime of the caller. `log` gets `HOST VERB` of everything it is asked.
    pub fn start(group: &Group, name: &str, log: &Log) -> Self {
        let agent = Self {
            name: name.to_owned(),
            inner: Arc::default(),
            held: Arc::new(watch::Sender::new(None)),
            log: log.clone(),
        };
        let credentials = issue(&group.authority, Role::Host, name);
        let members = group
            .members
            .iter()
            .map(|m| (m.name.to_string(), m.address.clone()))
            .collect();
        tokio::spawn(agent.clone().live(credentials, members));
        agent
    }

    pub fn fail(&self, verb: Option<&'static str>) {
        self.inner.lock().unwrap().failing = verb.map(|verb| (verb, FailureKind::Internal));
    }

    pub fn fail_as(&self, verb: &'static str, kind: FailureKind) {
        self.inner.lock().unwrap().failing = Some((verb, kind));
    }

    pub fn hold(&self, verb: Option<&'static str>) {
        self.held.send_replace(verb);
    }

    /// What pre-copy answers.
    pub fn rounds(&self, rounds: Vec<Round>) {
        self.inner.lock().unwrap().rounds = rounds;
    }

    /// What a sample answers.
    pub fn estimate(&self, estimate: Estimate) {
        self.inner.lock().unwrap().estimate = estimate;
    }

    /// Says how pre-copy stands.
    pub async fn tell(&self, migration: &MigrationId, progress: Progress) {
        let report = ProgressReport {
            migration: migration.clone(),
            progress,
        };
        let said = from_agent::Message::Progress(document::write(&report));
        let session = self.inner.lock().unwrap().session.clone();
        session.unwrap().send(message(said)).await.unwrap();
    }

    pub fn asked(&self) -> Vec<String> {
        self.inner.lock().unwrap().asked.clone()
    }

    /// With how many different operation ids it was asked this.
    pub fn operations(&self, verb: &str) -> usize {
        let inner = self.inner.lock().unwrap();
        inner.operations.get(verb).map_or(0, BTreeSet::len)
    }

    pub fn table(&self, network: &str) -> Option<NetworkTable> {
        self.inner.lock().unwrap().tables.get(network).cloned()
    }

    /// Whether it is in contact with anybody.
    pub fn down(&self, down: bool) {
        self.inner.lock().unwrap().down = down;
    }

    /// By which generation it has an instance.
    pub fn generation(&self, container: &ContainerId) -> Option<Generation> {
        let inner = self.inner.lock().unwrap();
        inner.instances.get(container).map(|instance| instance.0)
    }

    /// What is reported of an instance besides what it was asked.
    pub fn is(&self, container: &ContainerId, state: InstanceState) {
        let mut inner = self.inner.lock().unwrap();
        inner.instances.get_mut(container).unwrap().1 = state;
    }

    pub fn exit(&self, container: &ContainerId, code: i32) {
        let mut inner = self.inner.lock().unwrap();
        let exit = Exit { code, at_ms: 1 };
        inner.instances.get_mut(container).unwrap().1 = InstanceState::Exited { exit };
    }

    async fn live(self, credentials: Credentials, members: Vec<(String, String)>) {
        loop {
            for (name, address) in &members {
                if self.inner.lock().unwrap().down {
                    continue;
                }
                let target = Target {
                    address: address.clone(),
                    cluster: CLUSTER.to_owned(),
                    role: Role::Member,
                    name: Some(name.clone()),
                };
                let channel = tls::channel(credentials.client_config().unwrap(), target);
                let _ = self.session(DispatcherClient::new(channel)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn session(
        &self,
        mut client: DispatcherClient<tonic::transport::Channel>,
    ) -> Result<(), tonic::Status> {
        let (sender, receiver) = mpsc::channel(64);
        let hello = from_agent::Message::Hello(Hello {
            address: "192.0.2.1:1".to_owned(),
            underlay: "192.0.2.1".to_owned(),
            report: Some(document::write(&self.report())),
        });
        sender.send(message(hello)).await.unwrap();
        self.inner.lock().unwrap().session = Some(sender.clone());
        let mut stream = client
            .session(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        let mut beat = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                item = stream.message() => match item?.and_then(|item| item.message) {
                    Some(to_agent::Message::Command(command)) => {
                        let command: AgentCommand = document::read(&command).unwrap();
                        let (agent, sender) = (self.clone(), sender.clone());
                        tokio::spawn(async move { agent.obey(command, sender).await });
                    }
                    Some(to_agent::Message::Welcome(_)) => {}
                    Some(to_agent::Message::NotLeader(_)) | None => return Ok(()),
                },
                _ = beat.tick() => {
                    if self.inner.lock().unwrap().down {
                        return Ok(());
                    }
                    let report = from_agent::Message::Report(document::write(&self.report()));
                    if sender.send(message(report)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn obey(&self, command: AgentCommand, sender: mpsc::Sender<FromAgent>) {
        let name = command.verb.name();
        if name != "sync-network" {
            let mut inner = self.inner.lock().unwrap();
            inner.asked.push(name.to_owned());
            let ids = inner.operations.entry(name.to_owned()).or_default();
            ids.insert(command.operation.clone());
            self.log
                .lock()
                .unwrap()
                .push(format!("{} {name}", self.name));
        }
        let mut held = self.held.subscribe();
        let _ = held.wait_for(|held| *held != Some(name)).await;
        let result = self.act(&command);
        let answer = match result {
            Ok(outcome) => result::Result::Outcome(document::write(&outcome)),
            Err(failure) => result::Result::Failure(document::write(&failure)),
        };
        let answer = from_agent::Message::Result(AgentResult {
            operation: command.operation.to_string(),
            result: Some(answer),
        });
        let _ = sender.send(message(answer)).await;
    }

    fn act(&self, command: &AgentCommand) -> Result<Outcome, CommandFailure> {
        let mut inner = self.inner.lock().unwrap();
        if let Some(before) = inner.done.get(&command.operation) {
            return before.clone();
        }
        let name = command.verb.name();
        let result = match inner.failing {
            Some((failing, kind)) if failing == name => {
                Err(CommandFailure::new(kind, "the script says so"))
            }
            _ => Ok(inner.outcome(&command.verb)),
        };
        inner.done.insert(command.operation.clone(), result.clone());
        result
    }

    fn report(&self) -> AgentReport {
        let inner = self.inner.lock().unwrap();
        let instances = inner
            .instances
            .iter()
            .map(|(id, (generation, state))| InstanceReport {
                container: id.clone(),
                generation: *generation,
                state: state.clone(),
                details: Default::default(),
            });
        AgentReport {
            facts: HostFacts {
                arch: "x86_64".to_owned(),
                kernel: "6.18.0".to_owned(),
                criu: Some("4.2.1".to_owned()),
                criu_problem: None,
                cgroups: CgroupMode::V2,
                cpus: 2,
                cpu_flags: Default::default(),
                memory: ByteSize(1 << 30),
                disk_free: ByteSize(1 << 30),
                version: "0".to_owned(),
                precopy_problem: None,
                warnings: vec![],
            },
            disk_free: 1 << 30,
            instances: instances.collect(),
            images: vec![ImageSummary {
                id: Digest::from_sha256([1; 32]),
                names: vec!["redis".parse().unwrap()],
                size: ByteSize(1),
                created: 0,
                volumes: vec![],
                exposed: vec![],
            }],
        }
    }
}

impl Inner {
    fn outcome(&mut self, verb: &Verb) -> Outcome {
        let steps = || {
            vec![FreezeStep {
                name: verb.name().to_owned(),
                micros: 5,
                running: false,
            }]
        };
        match verb {
            Verb::Run {
                container,
                generation,
                ..
            } => {
                let state = InstanceState::Running { pid: 42 };
                self.instances
                    .insert(container.clone(), (*generation, state));
                Outcome::Running { pid: 42 }
            }
            Verb::Stop { container, .. } => {
                let exit = Exit {
                    code: 143,
                    at_ms: 7,
                };
                if let Some(instance) = self.instances.get_mut(container) {
                    instance.1 = InstanceState::Exited { exit };
                }
                Outcome::Stopped { exit }
            }
            Verb::Sample { .. } => Outcome::Sampled {
                estimate: self.estimate.clone(),
            },
            Verb::PreCopy { .. } => Outcome::PreCopied {
                rounds: self.rounds.clone(),
                bytes: self.rounds.iter().map(|round| round.sent_bytes).sum(),
                predicted_freeze_us: 5000,
            },
            Verb::CheckSource { .. } => Outcome::Checked {
                need: 100,
                memory: 200,
            },
            Verb::CheckDestination { need, memory, .. } => {
                assert_eq!((*need, *memory), (100, 200));
                Outcome::Checked { need: 0, memory: 0 }
            }
            Verb::Prepare {
                container,
                generation,
                migration,
                ..
            } => {
                let state = InstanceState::Staged {
                    migration: migration.clone(),
                };
                self.instances
                    .insert(container.clone(), (*generation, state));
                Outcome::Done
            }
            Verb::Freeze {
                container,
                migration,
                ..
            } => {
                self.instances.get_mut(container).unwrap().1 = InstanceState::Frozen {
                    migration: migration.clone(),
                };
                Outcome::Frozen { steps: steps() }
            }
            Verb::Thaw {
                container,
                generation,
                ..
            } => {
                if let Some(instance) = self.instances.get_mut(container) {
                    instance.0 = *generation;
                    instance.1 = InstanceState::Running { pid: 42 };
                }
                Outcome::Done
            }
            Verb::Transfer { .. } => Outcome::Transferred {
                bytes: 777,
                steps: steps(),
            },
            Verb::Stage { .. } => Outcome::Staged { steps: steps() },
            Verb::Resume { container, .. } => {
                let running = InstanceState::Running { pid: 43 };
                self.instances.get_mut(container).unwrap().1 = running;
                Outcome::Resumed {
                    pid: 43,
                    steps: steps(),
                }
            }
            Verb::Remove { container, .. }
            | Verb::Discard { container, .. }
            | Verb::Release { container, .. } => {
                self.instances.remove(container);
                Outcome::Done
            }
            Verb::Start { container, .. } | Verb::Unpause { container, .. } => {
                if let Some(instance) = self.instances.get_mut(container) {
                    instance.1 = InstanceState::Running { pid: 42 };
                }
                match verb {
                    Verb::Start { .. } => Outcome::Running { pid: 42 },
                    _ => Outcome::Done,
                }
            }
            Verb::Pause { container, .. } => {
                if let Some(instance) = self.instances.get_mut(container) {
                    instance.1 = InstanceState::Paused { pid: 42 };
                }
                Outcome::Done
            }
            Verb::Signal { .. } | Verb::Update { .. } => Outcome::Done,
            Verb::BringImage { .. } => Outcome::Done,
            Verb::SyncNetwork { table } => {
                let name = table.network.name.to_string();
                let known = self.tables.get(&name).map_or(0, |known| known.version);
                if table.version >= known {
                    self.tables.insert(name, table.clone());
                }
                Outcome::Done
            }
            Verb::RemoveVolume { .. } | Verb::RemoveNetwork { .. } => Outcome::Done,
        }
    }
}

fn message(message: from_agent::Message) -> FromAgent {
    FromAgent {
        message: Some(message),
    }
}
