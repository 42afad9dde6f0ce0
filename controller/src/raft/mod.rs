//! This member's part of the Raft group: the replicated log, on disk, over our own gRPC.
//!
//! One thread owns raft's node ([`driver`]); everybody else holds a [`Raft`] and sends it
//! requests. What is applied is published as a whole, cheap to take at any time.

mod driver;
mod log;
mod owner;
mod receive;
mod sealed;
mod store;
mod transport;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use godwit_core::{Applied, Command, State, StateError};
use godwit_types::Refusal;
use raft::{
    Config, RawNode,
    eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::Tuning;
use driver::{Driver, Input, Inputs, Settings};
pub use driver::{Leadership, Published, RaftStatus, TransferError};
pub use owner::Owner;
pub use receive::service;
use store::Store;
pub use store::StoreError;
pub use transport::Peer;
use transport::{Line, Outbox, Standing};

/// Ticks of 50 ms: a follower that hears nothing for 0.75 to 1.5 s stands for election.
const ELECTION_TICKS: usize = 15;
const HEARTBEAT_TICKS: usize = 2;
const QUEUE: usize = 4096;
/// A read that raft dropped is asked again.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The state machine said no. Trying again changes nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("this member does not lead")]
    NotLeader,
    /// It may have been committed or not.
    #[error("the lead was lost before the answer")]
    Lost,
    #[error("this member is overloaded")]
    Busy,
    #[error("this member is stopping")]
    Stopped,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't use the log `{path}`")]
    Store {
        path: PathBuf,
        #[source]
        source: StoreError,
    },
    #[error("snapshot can't be read")]
    State(#[from] StateError),
    #[error("raft can't start")]
    Raft(#[from] raft::Error),
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    #[error("can't start a thread")]
    Thread(#[source] std::io::Error),
}

/// What a member needs to take part.
pub struct Options<'a> {
    pub owner: Owner,
    /// The ids that the group began with.
    pub founders: &'a [u64],
    /// The members as the configuration names them.
    pub peers: &'a [Peer],
    /// Where this member listens.
    pub address: &'a str,
    /// The file of the log.
    pub path: &'a Path,
    pub client: Arc<rustls::ClientConfig>,
    pub tuning: Tuning,
}

/// What a member is to be in Raft's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Voter,
    Learner,
    Out,
}

/// The way to this member's part of the group.
pub struct Raft {
    id: u64,
    inputs: Inputs,
    published: watch::Receiver<Published>,
    leadership: watch::Receiver<Leadership>,
    standing: watch::Receiver<Standing>,
    ended: watch::Receiver<Option<String>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Raft {
    /// Opens the log and starts the thread. To be called inside a tokio runtime.
    pub fn start(options: &Options<'_>) -> Result<Arc<Self>, StartError> {
        let failed = |source| StartError::Store {
            path: options.path.to_owned(),
            source,
        };
        let store = Store::open(options.path, &options.owner, options.founders).map_err(failed)?;
        let (applied, state) = match store.snapshot_state().map_err(failed)? {
            Some((index, json)) => (index, State::from_json(&json)?),
            None => (0, State::default()),
        };
        let id = options.owner.id;
        let config = Config {
            id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 4 << 20,
            ..Config::default()
        };
        let ids: BTreeSet<u64> = store::ids(store.conf());
        let node = RawNode::new(&config, store, &log::logger())?;
        let (inputs, queue) = mpsc::sync_channel(QUEUE);
        let inputs = Inputs(inputs);
        let (published_sender, published) = watch::channel(Published {
            state: Arc::new(state),
            applied,
            ids: Arc::new(ids),
        });
        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        let (standing_sender, standing) = watch::channel(Standing::default());
        let (ended_sender, ended) = watch::channel(None);
        let outbox = Outbox::new(Line {
            id,
            address: options.address.to_owned(),
            cluster: options.owner.cluster.clone(),
            client: options.client.clone(),
            inputs: inputs.clone(),
            part: options.tuning.part,
            standing: standing.clone(),
        });
        let settings = Settings {
            proposer: getrandom::u64().map_err(StartError::Random)?,
            snapshot_every: options.tuning.snapshot_every,
            configured: options.peers.to_vec(),
            standing: standing_sender,
            ended: ended_sender,
        };
        let driver = Driver::new(
            node,
            queue,
            outbox,
            published_sender,
            leadership_sender,
            settings,
        );
        let thread = std::thread::Builder::new()
            .name("raft".to_owned())
            .spawn(move || driver.run())
            .map_err(StartError::Thread)?;
        Ok(Arc::new(Self {
            id,
            inputs,
            published,
            leadership,
            standing,
            ended,
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// This member's Raft id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The state as it is applied here: on a follower, or a leader that was cut off, perhaps not
    /// the newest.
    pub fn state(&self) -> Arc<State> {
        self.published.borrow().state.clone()
    }

    /// Wakes at every change of the state.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.clone()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Stores a command and answers what applying it said; the state here has it then.
    pub async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        self.propose_all(std::slice::from_ref(command)).await
    }

    /// Several in one write; answers what applying the last one said.
    pub async fn propose_all(&self, commands: &[Command]) -> Result<Applied, ProposeError> {
        let (answer, result) = oneshot::channel();
        self.enqueue(commands, Some(answer))?;
        result.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// Stores a command and does not wait. Commands keep their order.
    pub fn propose_detached(&self, command: &Command) {
        if let Err(reason) = self.enqueue(std::slice::from_ref(command), None) {
            tracing::debug!(%reason, "proposal dropped");
        }
    }

    fn enqueue(
        &self,
        commands: &[Command],
        answer: Option<driver::Answer>,
    ) -> Result<(), ProposeError> {
        let commands = commands.iter().map(written).collect();
        if self.inputs.send(Input::Propose { commands, answer }) {
            Ok(())
        } else {
            Err(ProposeError::Busy)
        }
    }

    /// The state with everything in it that was committed before this call: a read index.
    pub async fn read(&self) -> Result<Arc<State>, ProposeError> {
        let (answer, result) = oneshot::channel();
        if !self.inputs.send(Input::Read(answer)) {
            return Err(ProposeError::Busy);
        }
        match timeout(READ_TIMEOUT, result).await {
            Ok(Ok(Ok(()))) => Ok(self.state()),
            Ok(Ok(Err(reason))) => Err(reason),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Lost),
        }
    }

    /// Changes Raft's configuration, and with it what `command` says, in one entry. Nothing to
    /// change: a joint configuration is left.
    pub async fn change(
        &self,
        changes: Vec<(u64, Kind)>,
        command: Option<&Command>,
    ) -> Result<Applied, ProposeError> {
        let command = command.map_or_else(Vec::new, written);
        let singles = changes.into_iter().map(|(id, kind)| {
            let mut single = ConfChangeSingle {
                node_id: id,
                ..ConfChangeSingle::default()
            };
            single.set_change_type(match kind {
                Kind::Voter => ConfChangeType::AddNode,
                Kind::Learner => ConfChangeType::AddLearnerNode,
                Kind::Out => ConfChangeType::RemoveNode,
            });
            single
        });
        let mut change = ConfChangeV2::default();
        change.set_changes(singles.collect::<Vec<_>>().into());
        let (answer, result) = oneshot::channel();
        let input = Input::Change {
            change,
            command,
            answer,
        };
        if !self.inputs.send(input) {
            return Err(ProposeError::Busy);
        }
        result.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// Begins to hand the lead to this voter.
    pub async fn transfer(&self, to: u64) -> Result<(), TransferError> {
        let (answer, result) = oneshot::channel();
        if !self.inputs.send(Input::Transfer { to, answer }) {
            return Err(TransferError::NotLeader);
        }
        result.await.unwrap_or(Err(TransferError::NotLeader))
    }

    /// Waits until the thread has ended, and answers why, when it was not told to.
    pub async fn ended(&self) -> Option<String> {
        let mut leadership = self.leadership();
        while leadership.changed().await.is_ok() {}
        self.ended.borrow().clone()
    }

    pub async fn status(&self) -> Option<RaftStatus> {
        let (answer, result) = oneshot::channel();
        if !self.inputs.send(Input::Status(answer)) {
            return None;
        }
        result.await.ok()
    }

    /// A message of another member. Dropped when too many wait: raft sends it again.
    fn deliver(&self, message: raft::eraftpb::Message) {
        self.inputs.send(Input::Message(Box::new(message)));
    }

    /// Ends the thread, after handing the lead over when `transfer`.
    pub async fn stop(&self, transfer: bool) {
        self.inputs.send(Input::Stop { transfer });
        let thread = self.thread.lock().ok().and_then(|mut held| held.take());
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn written(command: &Command) -> Vec<u8> {
    serde_json::to_vec(command).expect("every key of a command is text")
}
