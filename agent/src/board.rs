//! What this host would report now: instances and images, as their owners last wrote them.
//!
//! Each container's task is the only writer of its line; the session reads all of them and is
//! woken by every change.

use std::{collections::BTreeMap, sync::Mutex};

use godwit_types::{
    ContainerId, Generation, ImageSummary, InstanceDetails, InstanceReport, InstanceState,
};
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    lines: Mutex<Lines>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    instances: BTreeMap<ContainerId, InstanceReport>,
    images: Vec<ImageSummary>,
}

impl Board {
    /// Writes a container's line; None: it is not here.
    pub fn publish(&self, container: &ContainerId, line: Option<(Generation, InstanceState)>) {
        self.publish_with(container, line, InstanceDetails::default());
    }

    /// The same, with what is known besides.
    pub fn publish_with(
        &self,
        container: &ContainerId,
        line: Option<(Generation, InstanceState)>,
        details: InstanceDetails,
    ) {
        let line = line.map(|(generation, state)| InstanceReport {
            container: container.clone(),
            generation,
            state,
            details,
        });
        let mut lines = self.lines.lock().expect("no writer panics");
        if lines.instances.get(container) == line.as_ref() {
            return;
        }
        match line {
            Some(line) => lines.instances.insert(container.clone(), line),
            None => lines.instances.remove(container),
        };
        drop(lines);
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn set_images(&self, images: Vec<ImageSummary>) {
        self.lines.lock().expect("no writer panics").images = images;
        self.changes.send_modify(|count| *count += 1);
    }

    pub fn state(&self, container: &ContainerId) -> Option<InstanceState> {
        let lines = self.lines.lock().expect("no writer panics");
        lines
            .instances
            .get(container)
            .map(|line| line.state.clone())
    }

    pub fn instances(&self) -> Vec<InstanceReport> {
        let lines = self.lines.lock().expect("no writer panics");
        lines.instances.values().cloned().collect()
    }

    pub fn images(&self) -> Vec<ImageSummary> {
        self.lines.lock().expect("no writer panics").images.clone()
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_wakes_the_session() {
        let board = Board::default();
        let mut changes = board.changes();
        let id = ContainerId::from_bytes([1; 32]);
        let running = Some((Generation(1), InstanceState::Running { pid: 7 }));
        board.publish(&id, running.clone());
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        board.publish(&id, running);
        assert!(!changes.has_changed().unwrap());
        board.publish(&id, None);
        assert!(changes.has_changed().unwrap() && board.instances().is_empty());
    }
}
