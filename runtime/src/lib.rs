//! Containers on one host: images, root file systems, networks, cgroups, CRIU, checkpoints and
//! the shim.
//!
//! It knows no cluster: no generation, no leader, no other host. The agent calls it; the shim
//! (`godwit-shim`, one process per container) is its other half and is spoken to through
//! [`shim::Client`].

pub mod build;
pub mod cgroup;
pub mod checkpoint;
pub mod container;
pub mod criu;
pub mod exec;
pub mod frames;
pub mod image;
pub mod log;
pub mod memory;
pub mod network;
mod observe;
pub mod rootfs;
mod runtime;
pub mod shim;
mod sys;
pub mod tmpfs;
mod unmovable;
pub mod volume;

pub use runtime::{Config, Interrupt, LAYER, LayerPart, Moving, Runtime, RuntimeError, VOLUME};
