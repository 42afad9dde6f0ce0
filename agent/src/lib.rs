//! The daemon on a host: it keeps a session with the leader, does what it is asked by calling
//! `godwit-runtime`, remembers what it did, and moves checkpoints from agent to agent.
//!
//! It decides nothing about the cluster: no schedule, no retry, no hand-over of its own. What it
//! does decide is whether it may do what it is asked ([`container::admission`]), from what its
//! [`ledger`] says; that is what fences a sender that has been overtaken.
//!
//! ```text
//! session ─▶ container ─▶ commands ─▶ runtime (containers, CRIU, networks)
//!                │            ├─────▶ precopy: rounds while the container runs
//!              ledger         └─────▶ transfer::source ──push──▶ another agent's
//!                                                               transfer::service
//! ```

mod agent;
mod board;
mod build;
mod commands;
pub mod container;
mod exclusive;
mod failures;
mod health;
mod host;
mod host_service;
mod images;
pub mod ledger;
mod live;
mod loading;
mod logs;
mod looking;
mod outbox;
mod postcopy;
mod precopy;
mod progress;
mod session;
pub mod transfer;

pub use agent::{Agent, AgentError, Config};
pub use health::Health;
pub use images::{ImagesConfig, ImagesConfigError};
pub use live::{Live, Reload};
