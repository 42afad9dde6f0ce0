//! Tails under way, from the transfer in the freeze until their source is released.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use godwit_types::{CommandFailure, ContainerId, FailureKind};
use tokio::task::JoinHandle;

use super::Tail;
use crate::{host::Host, ledger::Answer};

/// See the module.
#[derive(Default)]
pub struct Tails {
    under_way: Mutex<HashMap<ContainerId, (Tail, JoinHandle<Answer>)>>,
}

impl Tails {
    /// Begins to deliver. One that was under way for this container is called off.
    pub fn begin(&self, host: &Arc<Host>, tail: Tail) {
        let container = tail.passage().container.clone();
        let work = {
            let (host, tail) = (host.clone(), tail.clone());
            tokio::spawn(async move { tail.deliver(&host).await })
        };
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = under_way.insert(container, (tail, work)) {
            before.abort();
        }
    }

    /// Waits until everything is delivered; begins where an agent before this one did not end.
    pub async fn finish(&self, host: &Arc<Host>, tail: Tail) -> Answer {
        let found = {
            let mut under_way = self
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            under_way.remove(&tail.passage().container)
        };
        match found {
            Some((known, work)) if known.passage() == tail.passage() => {
                let done = AbortOnDrop(work);
                done.wait().await
            }
            Some((_, work)) => {
                work.abort();
                tail.deliver(host).await
            }
            None => tail.deliver(host).await,
        }
    }

    /// Calls it off: the tasks run again, or are gone.
    pub fn forget(&self, container: &ContainerId) {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((_, work)) = under_way.remove(container) {
            work.abort();
        }
    }
}

/// A command that is dropped leaves nothing running.
struct AbortOnDrop(JoinHandle<Answer>);

impl AbortOnDrop {
    async fn wait(mut self) -> Answer {
        match (&mut self.0).await {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!("memory that was left behind: {error}");
                Err(CommandFailure::new(FailureKind::Internal, text))
            }
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
