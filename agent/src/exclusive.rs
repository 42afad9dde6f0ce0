//! One at a time for each container: what its task does, and a commit, which is asked for beside
//! it. A commit lets the container stand still for a while; nothing may freeze it meanwhile.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use godwit_types::ContainerId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// See the module.
#[derive(Debug, Default)]
pub struct Exclusive {
    locks: Mutex<HashMap<ContainerId, Arc<AsyncMutex<()>>>>,
}

impl Exclusive {
    /// Waits until nobody else has this container.
    pub async fn take(&self, container: &ContainerId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock().expect("no holder panics");
            // Nobody has those that only the table has.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(container.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_container_is_had_by_one_and_others_are_free() {
        let exclusive = Exclusive::default();
        let (a, b) = (
            ContainerId::from_bytes([1; 32]),
            ContainerId::from_bytes([2; 32]),
        );
        let held = exclusive.take(&a).await;
        let _other = exclusive.take(&b).await;
        let mut second = std::pin::pin!(exclusive.take(&a));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut second).await.is_err());
        drop(held);
        second.await;
    }
}
