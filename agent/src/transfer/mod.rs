//! One frozen container's checkpoint, from agent to agent.
//!
//! [`protocol`] says what goes over the wire, [`source`] sends it, [`destination`] checks and
//! writes it. [`doors`] knows which pushes are expected, and [`service`] is the gRPC handler
//! that brings the last two together. [`memory`] is the way of what goes ahead of it. Source and destination know neither runtime nor ledger:
//! a list of files goes in on one side, a [`Sink`] takes them on the other.

pub mod destination;
pub mod doors;
pub mod memory;
pub mod protocol;
pub mod service;
pub mod source;

pub use destination::{PushError, Sink};
pub use doors::{Doors, Expected};
