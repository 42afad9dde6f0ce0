//! Containers on one host: images, root file systems, networks, cgroups, CRIU, checkpoints and
//! the shim.
//!
//! It knows no cluster: no generation, no leader, no other host. The agent calls it; the shim
//! (`godwit-shim`, one process per container) is its other half and is spoken to through
//! [`shim::Client`].

pub mod checkpoint;
pub mod log;
mod runtime;

pub use runtime::{Config, Runtime, RuntimeError};
