//! Containers that are slowed down so that their memory can be caught up with.
//!
//! What is slowed stays so until it is frozen: it would run away otherwise. Every way back makes
//! it fast again: pre-copy that fails, the undo of a migration, and an agent that starts and
//! finds it running.

use std::{collections::HashSet, sync::Mutex};

use godwit_proto::failure::chain;
use godwit_runtime::Runtime;
use godwit_types::ContainerId;
use tracing::{debug, info, warn};

/// See the module.
#[derive(Default)]
pub struct Throttled {
    containers: Mutex<HashSet<ContainerId>>,
}

impl Throttled {
    pub async fn slow(&self, runtime: &Runtime, container: &ContainerId, percent: u32) {
        self.containers
            .lock()
            .expect("no holder panics")
            .insert(container.clone());
        match runtime.throttle(container, Some(percent)).await {
            Ok(()) => info!(container = container.short(), percent, "slowed down"),
            Err(error) => warn!(
                container = container.short(),
                error = chain(&error),
                "can't be slowed down"
            ),
        }
    }

    /// The container has left this host.
    pub fn forget(&self, container: &ContainerId) {
        self.containers
            .lock()
            .expect("no holder panics")
            .remove(container);
    }

    /// Harmless for one that is not slowed.
    pub async fn release(&self, runtime: &Runtime, container: &ContainerId) {
        let was = self
            .containers
            .lock()
            .expect("no holder panics")
            .remove(container);
        if was {
            restore(runtime, container).await;
        }
    }
}

/// All its processors, whoever slowed it down.
pub async fn restore(runtime: &Runtime, container: &ContainerId) {
    match runtime.throttle(container, None).await {
        Ok(()) => debug!(container = container.short(), "at full speed"),
        Err(error) => warn!(
            container = container.short(),
            error = chain(&error),
            "can't be made fast again"
        ),
    }
}
