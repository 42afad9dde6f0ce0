//! What a member says of itself to probes and to Prometheus.

use std::sync::{Arc, atomic::AtomicU64};

use godwit_daemon::health::Source;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::raft::Raft;

/// See the module.
pub struct Health(pub(crate) Arc<Raft>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: String,
}

impl Source for Health {
    fn ready(&self) -> Result<(), String> {
        match self.0.leadership().borrow().leader {
            Some(_) => Ok(()),
            None => Err("no leader is known".to_owned()),
        }
    }

    /// Made anew each time from what is replicated: it is the same on every member, but for what
    /// the member has not heard of yet.
    fn metrics(&self) -> String {
        let (state, applied) = {
            let published = self.0.published();
            let published = published.borrow();
            (published.state.clone(), published.applied)
        };
        let leadership = *self.0.leadership().borrow();
        let mut registry = Registry::with_prefix("godwit");
        let gauge = |value: u64| {
            let gauge = Gauge::<u64, AtomicU64>::default();
            gauge.set(value);
            gauge
        };
        let mut register = |name: &str, help: &str, value: u64| {
            registry.register(name, help, gauge(value));
        };
        register("raft_term", "The term of Raft", leadership.term);
        register(
            "raft_applied",
            "The last entry of the log that is applied here",
            applied,
        );
        register(
            "raft_leads",
            "Whether this member leads",
            u64::from(leadership.leading),
        );
        register("hosts", "Hosts that ever were", state.hosts.len() as u64);
        register(
            "containers",
            "Containers in any state",
            state.containers.len() as u64,
        );
        let phases = Family::<Phase, Gauge>::default();
        for migration in state.migrations.values() {
            let phase = migration.phase.to_string();
            phases.get_or_create(&Phase { phase }).inc();
        }
        registry.register("migrations", "Migrations that are kept, by phase", phases);
        let last = state
            .migrations
            .values()
            .filter(|migration| migration.times.freeze_us > 0)
            .max_by_key(|migration| migration.started_ms);
        if let Some(last) = last {
            let freeze = Gauge::<f64, AtomicU64>::default();
            freeze.set(last.times.freeze_us as f64 / 1e6);
            let help = "For how long the container stood still that was moved last";
            registry.register_with_unit("last_freeze", help, Unit::Seconds, freeze);
        }
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}
