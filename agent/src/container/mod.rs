//! The containers of this host, one task each.
//!
//! ```text
//! session ──submit──▶ Containers ──bounded queue──▶ task of one container
//!                                                     admission   may it be done? (pure)
//!                                                     effect      what it changes (pure)
//!                                                     commands    do it (runtime)
//!                                                     ledger      remember, then answer
//! ```
//!
//! A task does one command at a time; the one exception is the undo of what is being done,
//! which drops it. Between commands, and during one that may take minutes, it watches its instance
//! and puts every change on the board.

pub mod admission;
pub mod effect;
pub mod restart;
mod task;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use godwit_proto::failure::chain;
use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, FailureKind, InstanceState, OperationId, Verb,
};
pub use task::ask;
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    commands, failures,
    host::Host,
    images,
    ledger::{Answer, Ledger, LedgerError, Record},
};

/// Commands that may wait for one container. The leader has at most a few under way.
pub const QUEUE: usize = 16;

/// The queues of the tasks that live.
#[derive(Debug, Default)]
pub struct Containers {
    queues: Mutex<HashMap<ContainerId, mpsc::Sender<AgentCommand>>>,
}

/// Hands a command to the task of its container. The answer goes to the outbox.
pub fn submit(host: &Arc<Host>, command: AgentCommand) {
    let Some(container) = command.verb.container().cloned() else {
        let host = host.clone();
        tokio::spawn(async move {
            let answer = match &command.verb {
                Verb::BringImage {
                    image,
                    names,
                    peers,
                } => images::bring(&host, image, names, peers).await,
                verb => commands::of_host(&host, verb).await,
            };
            answer_now(&host, command.operation, answer).await;
        });
        return;
    };
    // The lock is held over the send, so that a task can't retire between the two.
    let mut queues = host.containers.queues.lock().expect("no holder panics");
    let queue = queues.entry(container.clone()).or_insert_with(|| {
        let (queue, commands) = mpsc::channel(QUEUE);
        task::spawn(host.clone(), container, commands, None);
        queue
    });
    if let Err(error) = queue.try_send(command) {
        drop(queues);
        let host = host.clone();
        let command = error.into_inner();
        tokio::spawn(async move { answer_now(&host, command.operation, Err(busy())).await });
    }
}

/// Starts the task of an instance that was found when the agent started.
pub fn attach(host: &Arc<Host>, taken: TakenUp, state: Option<InstanceState>) {
    let container = taken.record.container.clone();
    let (queue, commands) = mpsc::channel(QUEUE);
    task::spawn(
        host.clone(),
        container.clone(),
        commands,
        Some((taken, state)),
    );
    host.containers
        .queues
        .lock()
        .expect("no holder panics")
        .insert(container, queue);
}

/// What is known of an instance that outlived its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenUp {
    pub record: Record,
    /// The record on the disk is older than this one.
    pub unstored: bool,
}

/// The record of an instance that was found when the agent started, None when there is none. What
/// follows from the instance is written down: nothing else might be, as long as it runs, and a
/// host that is started again then has only the ledger to know that it owns the container.
pub fn take_up(
    ledger: &Ledger,
    container: &ContainerId,
    state: Option<&InstanceState>,
) -> Result<Option<TakenUp>, LedgerError> {
    let Some(record) = ledger.load(container)? else {
        return Ok(None);
    };
    let found = match state {
        Some(state) => effect::found(&record, state),
        None => record.clone(),
    };
    let mut unstored = false;
    if found != record
        && let Err(error) = ledger.store(&found)
    {
        warn!(
            container = container.short(),
            error = chain(&error),
            "not stored yet"
        );
        unstored = true;
    }
    Ok(Some(TakenUp {
        record: found,
        unstored,
    }))
}

impl Containers {
    /// Takes a task out of the register if nothing waits for it. It then ends.
    fn retire(&self, container: &ContainerId, queue: &mpsc::Receiver<AgentCommand>) -> bool {
        let mut queues = self.queues.lock().expect("no holder panics");
        let retires = queue.is_empty();
        if retires {
            queues.remove(container);
        }
        retires
    }
}

async fn answer_now(host: &Host, operation: OperationId, answer: Answer) {
    let answer = answer.map_err(|failure| {
        let failure = failures::on_host(&host.name, failure);
        warn!(%operation, error = %failure, "command failed");
        failure
    });
    host.outbox.send(operation, answer).await;
}

/// It says nothing of the container: whoever insists on an undo must not take it for one that has
/// nothing to do.
fn busy() -> CommandFailure {
    CommandFailure::new(
        FailureKind::Internal,
        "too many commands wait for this container",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_no_word_on_the_container() {
        let verdicts = [
            FailureKind::NotFound,
            FailureKind::WrongState,
            FailureKind::Stale,
        ];
        assert!(!verdicts.contains(&busy().kind));
    }
}
