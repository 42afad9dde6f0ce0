//! What only the leader does, from its election to the end of its lead.
//!
//! ```text
//!             ┌ sessions      agents in contact, commands and answers
//!             ├ progress      how pre-copies stand
//!   Leader ───┼ reconcile     one task per thing that is not yet as it was asked for:
//!             │                 container (run, stop, remove), migration
//!             ├ drain         migrations away from hosts that are to be left
//!             ├ members       changes of the group, one at a time
//!             └ networks      endpoint tables to every live host
//! ```
//!
//! All of it may be lost at any moment: what must not be lost is in Raft, and the next leader
//! finds there what to do, by the same operation ids.

mod answer;
mod container;
mod drain;
mod fitness;
pub mod images;
pub mod members;
mod migration;
mod networks;
mod orders;
mod progress;
mod reconcile;
mod recovery;
pub mod sessions;
mod volume;
mod waits;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use godwit_core::{Command, State, news};
use godwit_types::{
    AgentReport, ContainerId, Generation, HostName, InstanceReport, MemberRecord, Membership,
};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    raft::{Leadership, ProposeError, Raft},
    scope::{self, Owner, Scope},
};
pub use fitness::against;
use progress::Progresses;
pub use reconcile::{Job, JobError, Jobs};
pub use sessions::AskError;
use sessions::Sessions;
use waits::Waits;

const SWEEP: Duration = Duration::from_millis(250);

/// One lead of this member.
pub struct Leader {
    pub term: u64,
    pub raft: Arc<Raft>,
    pub sessions: Sessions,
    pub progress: Progresses,
    pub waits: Waits,
    pub jobs: Jobs,
    pub scope: Scope,
    /// The members as this member's configuration names them.
    pub configured: Vec<MemberRecord>,
    owner: Owner,
    /// Instances on hosts that do not own them, each said once.
    strangers: Mutex<BTreeSet<(HostName, ContainerId, Generation)>>,
}

impl Leader {
    fn begin(term: u64, raft: Arc<Raft>, cluster: &str, configured: &[MemberRecord]) -> Arc<Self> {
        let (owner, scope) = scope::open();
        let leader = Arc::new(Self {
            term,
            raft,
            sessions: Sessions::new(),
            progress: Progresses::default(),
            waits: Waits::default(),
            jobs: Jobs::default(),
            scope: scope.clone(),
            configured: configured.to_vec(),
            owner,
            strangers: Mutex::default(),
        });
        if leader.state().cluster.is_empty() {
            leader.raft.propose_detached(&Command::Init {
                cluster: cluster.to_owned(),
            });
        }
        scope.spawn(reconcile::run(leader.clone()));
        scope.spawn(networks::run(leader.clone()));
        scope.spawn(drain::run(leader.clone()));
        scope.spawn(members::run(leader.clone()));
        scope.spawn(orders::remove_ended(leader.clone()));
        let sweeper = leader.clone();
        scope.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                sweeper.sessions.sweep();
            }
        });
        leader
    }

    fn end(&self) {
        self.owner.close();
        self.sessions.clear();
    }

    pub fn state(&self) -> Arc<State> {
        self.raft.state()
    }

    /// The newest state: a linearizable read.
    pub async fn read(&self) -> Result<Arc<State>, ProposeError> {
        self.raft.read().await
    }

    /// Who may lead after this one.
    pub fn membership(&self) -> Membership {
        let roster = &self.state().members;
        Membership {
            members: members::known(roster, &self.configured),
            founders: roster.founders.iter().copied().collect(),
            notes: Vec::new(),
        }
    }

    /// Writes down what a report says that the state does not know.
    pub fn observe(&self, host: &HostName, report: &AgentReport) {
        let state = self.state();
        for instance in &report.instances {
            let known = state.containers.get(&instance.container);
            let owned = known.is_some_and(|container| {
                container.host == *host && container.generation == instance.generation
            });
            let moving = known.is_some_and(|container| container.migration.is_some());
            if !owned && !moving && self.is_new_stranger(host, instance) {
                // Whose it is can't be told from here: it is left alone.
                warn!(%host, container = instance.container.short(),
                    generation = %instance.generation, state = ?instance.state,
                    "host has an instance that it does not own");
            }
        }
        for command in news(&state, host, &report.instances) {
            self.raft.propose_detached(&command);
        }
    }

    fn is_new_stranger(&self, host: &HostName, instance: &InstanceReport) -> bool {
        let key = (
            host.clone(),
            instance.container.clone(),
            instance.generation,
        );
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        strangers.insert(key)
    }

    /// Sends every network's table to one host.
    pub fn sync_networks(self: &Arc<Self>, host: &HostName) {
        networks::push_all(self, host);
    }
}

/// Begins and ends leads as Raft says, for ever.
pub async fn follow(
    raft: Arc<Raft>,
    cluster: String,
    configured: Vec<MemberRecord>,
    current: watch::Sender<Option<Arc<Leader>>>,
) {
    let mut leadership = raft.leadership();
    loop {
        let Leadership { term, leading, .. } = *leadership.borrow_and_update();
        let held = current.borrow().as_ref().map(|leader| leader.term);
        if held.is_some_and(|held| !leading || held != term)
            && let Some(leader) = current.send_replace(None)
        {
            leader.end();
            info!(term = leader.term, "lead ended");
        }
        if leading && held != Some(term) {
            current.send_replace(Some(Leader::begin(
                term,
                raft.clone(),
                &cluster,
                &configured,
            )));
        }
        if leadership.changed().await.is_err() {
            // The thread is gone: stopped, or failed.
            if let Some(leader) = current.send_replace(None) {
                leader.end();
            }
            return;
        }
    }
}
