//! Test hosts and the clusters made of them.

pub mod cgroups;
mod cluster;
mod host;
mod pauses;
mod slot;
mod traces;

pub use cluster::{Cluster, Options, PATIENCE, list};
pub use host::{Host, hold, wait_for};
pub use pauses::Hold;
pub use slot::Slot;
pub use traces::{Marks, on_host};
