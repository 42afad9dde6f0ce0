//! The hand-over of a container as a model that a checker explores: every order of messages, with
//! losses, repeats, restarts, elections, time-outs, failures and a user who cancels.
//!
//! ```text
//!            user: start, cancel
//!                  │
//!   former ┐   ┌ leader ── log (survives every leader)
//!   leader │   │   ▲
//!          ▼   ▼   │ answers
//!      network: loses, repeats, reorders
//!          │       │
//!       ┌──┴──┐ ┌──┴──┐
//!       │agent│ │agent│   ledger (survives), memory (does not)
//!       │shim │ │shim │   instance (outlives its agent)
//!       └─────┘ └─────┘
//! ```
//!
//! # What is real
//!
//! - The replicated state and every change of it: [`godwit_core::apply`], with its invariants,
//!   which are checked in every step.
//! - What the leader does next, and by which operation id: [`godwit_core::next_step`], over the
//!   phase table.
//! - What an agent admits, refuses, answers again or interrupts, what it writes down, and what it
//!   makes of what it finds after a restart: `godwit_agent::container::{admission, effect}` over
//!   its [`Record`](godwit_agent::ledger::Record).
//!
//! # What is modelled
//!
//! - [`drive`]: the leader's waiting and repeating, after `controller`'s `leader::migration`.
//! - [`host`]: an agent's task, after `agent`'s `container::task`, and its restart, after
//!   `agent::attach`.
//! - [`instance`]: what the runtime, its shim and CRIU do, as the few states that a verb can find.
//! - [`world`]: the network, the user, and what goes wrong.
//! - The container's output is a counter. Every interval in which a copy runs adds one, and its
//!   client has seen it: the worst case. A copy that starts to run with less than was seen has
//!   forgotten what was acknowledged.
//!
//! # What is left out
//!
//! Files and pages themselves, networks, the log of several members behind the one register, and
//! loss of a whole machine. A restart of an agent is one step, since an agent that is down is one
//! that is not scheduled; what its peer was sending breaks off. See `docs/protocol-model.md`.

pub mod bounds;
pub mod drive;
pub mod handover;
pub mod host;
pub mod instance;
pub mod kept;
pub mod message;
pub mod properties;
pub mod steps;
pub mod world;

pub use bounds::Bounds;
pub use handover::{Handover, Mutation};
pub use steps::Step;
pub use world::World;
