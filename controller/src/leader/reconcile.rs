//! Finds what is not yet as it was asked for, and keeps one task at it until it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use godwit_core::Job;
use godwit_core::due;
use godwit_types::{CommandFailure, HostName};
use tokio::sync::{Notify, oneshot};

use super::{Leader, container, migration, orders, recovery, volume};

/// A job that ended without a change of the state is not begun again at once.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a job is not done yet, for whoever waits for it. The job itself may go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Failed(#[from] CommandFailure),
    #[error("host `{0}` is down")]
    HostDown(HostName),
    #[error("the lead was lost")]
    Lost,
}

type Waiter = oneshot::Sender<Result<(), JobError>>;

/// The jobs under way, and who waits for them.
#[derive(Default)]
pub struct Jobs {
    running: Mutex<BTreeSet<Job>>,
    waiters: Mutex<BTreeMap<Job, Vec<Waiter>>>,
    ended: Notify,
}

impl Jobs {
    /// To be called before the command that makes the job due.
    pub fn wait(&self, job: Job) -> oneshot::Receiver<Result<(), JobError>> {
        let (waiter, result) = oneshot::channel();
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of requests that were refused, or whose callers are gone, would pile up.
        waiters.retain(|_, waiting| {
            waiting.retain(|waiter| !waiter.is_closed());
            !waiting.is_empty()
        });
        waiters.entry(job).or_default().push(waiter);
        result
    }

    /// Tells everybody who waits.
    pub(super) fn settle(&self, job: &Job, result: &Result<(), JobError>) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        for waiter in waiters.remove(job).into_iter().flatten() {
            let _ = waiter.send(result.clone());
        }
    }

    fn begin(&self, job: &Job) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(job.clone())
    }

    fn end(&self, job: &Job) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(job);
        self.ended.notify_one();
    }
}

pub(super) async fn run(leader: Arc<Leader>) {
    let mut published = leader.raft.published();
    loop {
        let state = published.borrow_and_update().state.clone();
        for job in due(&state) {
            if leader.jobs.begin(&job) {
                leader.scope.spawn(work(leader.clone(), job));
            }
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = leader.jobs.ended.notified() => {}
        }
    }
}

async fn work(leader: Arc<Leader>, job: Job) {
    match &job {
        Job::Run(id) => container::run(&leader, id).await,
        Job::Stop(id) => container::stop(&leader, id).await,
        Job::Remove(id) => container::remove(&leader, id).await,
        Job::Start(id) => orders::start(&leader, id).await,
        Job::Pause(id) => orders::pause(&leader, id).await,
        Job::Migrate(id) => migration::drive(&leader, id).await,
        Job::Clear(id) => recovery::clear(&leader, id).await,
        Job::RemoveVolume(name) => volume::remove(&leader, name).await,
    }
    if due(&leader.state()).contains(&job) {
        tokio::time::sleep(PAUSE).await;
    }
    leader.jobs.end(&job);
}
