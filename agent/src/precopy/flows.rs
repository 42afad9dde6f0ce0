//! Flows between their last round and the freeze's end.

use std::{collections::HashMap, sync::Mutex};

use godwit_runtime::Moving;
use godwit_types::{ContainerId, MigrationId};

use super::Flow;

/// See the module.
#[derive(Default)]
pub struct Flows {
    waiting: Mutex<HashMap<ContainerId, Flow>>,
}

impl Flows {
    pub fn keep(&self, container: &ContainerId, flow: Flow) {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        waiting.insert(container.clone(), flow);
    }

    pub fn has(&self, container: &ContainerId, migration: &MigrationId) -> bool {
        let waiting = self.waiting.lock().expect("no holder panics");
        waiting
            .get(container)
            .is_some_and(|flow| flow.migration() == migration)
    }

    /// Once: a freeze that is tried again sends the whole layer.
    pub fn take_layer(&self, container: &ContainerId, migration: &MigrationId) -> Vec<Moving> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let flow = waiting.get_mut(container);
        let flow = flow.filter(|flow| flow.migration() == migration);
        flow.map(Flow::take_layer).unwrap_or_default()
    }

    pub fn take(&self, container: &ContainerId, migration: &MigrationId) -> Option<Flow> {
        let mut waiting = self.waiting.lock().expect("no holder panics");
        let flow = waiting.remove(container)?;
        (flow.migration() == migration).then_some(flow)
    }

    /// Ends whatever waits. Writes are not tracked any more.
    pub fn forget(&self, container: &ContainerId) {
        let flow = self
            .waiting
            .lock()
            .expect("no holder panics")
            .remove(container);
        // Letting go of a large memory takes its time.
        if let Some(flow) = flow {
            tokio::task::spawn_blocking(move || drop(flow));
        }
    }
}
