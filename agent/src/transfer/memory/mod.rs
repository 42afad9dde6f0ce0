//! Private memory on its way from agent to agent, ahead of a freeze and in it.
//!
//! ```text
//! source                                                    destination
//!   session ─ frames ─▶ writer ─┬─ lane 0 ──────────────▶ receive ─┬─▶ arriving (a store)
//!                               ├─ lane 1 ──────────────▶ receive ─┤
//!                               └─ …        ◀── marks ──           │
//!                                                  stage takes the store, if every lane closed
//! ```
//!
//! A lane is a connection of its own, so that encryption is no bottleneck of one core; it is no
//! gRPC (`docs/adr/0004-memory-goes-over-lanes-of-its-own.md`).
//! A frame's cell chooses its lane, so that frames of the same page stay in order. A mark is
//! answered once everything before it is in place: only then is a round over.

pub mod accept;
pub mod arriving;
pub mod compress;
pub mod lanes;
pub mod receive;
pub mod wire;

pub use arriving::{Arriving, MemoryError};
pub use compress::Packer;
pub use lanes::{LaneError, Lanes, Pace, Writer};

/// Lanes at the most.
pub const LANES: u32 = 16;
