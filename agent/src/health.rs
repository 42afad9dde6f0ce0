//! What the agent says of itself to probes and to Prometheus.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use godwit_daemon::health::Source;
use godwit_types::InstanceState;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::host::Host;

/// See the module.
pub struct Health(pub(crate) Arc<Host>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// Each state that an instance can be in, as its label.
const STATES: [&str; 8] = [
    "created",
    "running",
    "paused",
    "frozen",
    "staged",
    "restarting",
    "exited",
    "lost",
];

fn label(state: &InstanceState) -> &'static str {
    match state {
        InstanceState::Created => STATES[0],
        InstanceState::Running { .. } => STATES[1],
        InstanceState::Paused { .. } => STATES[2],
        InstanceState::Frozen { .. } => STATES[3],
        InstanceState::Staged { .. } => STATES[4],
        InstanceState::Restarting { .. } => STATES[5],
        InstanceState::Exited { .. } => STATES[6],
        InstanceState::Lost { .. } => STATES[7],
    }
}

impl Source for Health {
    fn ready(&self) -> Result<(), String> {
        if !self.0.connected.load(Ordering::Relaxed) {
            return Err("no session with a leader".to_owned());
        }
        match &self.0.facts.criu_problem {
            None => Ok(()),
            Some(problem) => Err(problem.clone()),
        }
    }

    /// Made anew each time: nothing is counted that is not known elsewhere.
    fn metrics(&self) -> String {
        let host = &self.0;
        let mut registry = Registry::with_prefix("godwit_agent");
        let instances = Family::<State, Gauge>::default();
        // So that a state that nothing is in reads as 0.
        for state in STATES {
            drop(instances.get_or_create(&State { state }));
        }
        for report in host.board.instances() {
            let state = label(&report.state);
            instances.get_or_create(&State { state }).inc();
        }
        registry.register("instances", "Containers on this host by state", instances);
        let gauge = |value: u64| {
            let gauge = Gauge::<u64, AtomicU64>::default();
            gauge.set(value);
            gauge
        };
        let connected = u64::from(host.connected.load(Ordering::Relaxed));
        registry.register(
            "session",
            "Whether there is a session with a leader",
            gauge(connected),
        );
        let images = host.board.images().len() as u64;
        registry.register("images", "Images in the store", gauge(images));
        registry.register_with_unit(
            "disk_free",
            "Free under the data root",
            Unit::Bytes,
            gauge(host.runtime.disk_free()),
        );
        registry.register_with_unit(
            "memory_free",
            "Memory that arriving containers may take",
            Unit::Bytes,
            gauge(host.runtime.memory_free()),
        );
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}
