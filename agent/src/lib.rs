//! The daemon on a host: it does what the leader asks by calling `godwit-runtime`, remembers
//! what it did, and moves checkpoints from agent to agent.
//!
//! It decides nothing about the cluster: no schedule, no retry, no hand-over of its own. What it
//! does decide is whether it may do what it is asked ([`container::admission`]), from what its
//! [`ledger`] says; that is what fences a sender that has been overtaken.

pub mod container;
mod failures;
pub mod ledger;
pub mod transfer;
