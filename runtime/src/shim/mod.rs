//! The shim: one process per container, which creates or restores it, is the parent of its init,
//! keeps its log and its exit code, and holds CRIU while a container is frozen or staged.
//!
//! It outlives the agent, and its container outlives it: another shim takes that up by what is
//! [`kept`] beside the socket, as what it was, running or frozen. It has one thread, since libcontainer and CRIU fork; its socket takes
//! one JSON request a connection ([`protocol`]). Its state machine:
//!
//! ```text
//! Ready ─Create→ Running ─Freeze→ Frozen ─Release→ Released (ends)
//!   │               ↑  └─────Thaw────┘ │
//!   │               └──────────────────┘
//!   └─Arm→ Armed ─Stage→ Staged ─Resume→ Running
//!            └──Discard──┴──→ (ends)
//! ```

pub mod client;
pub(crate) mod held;
pub(crate) mod kept;
pub mod protocol;
pub(crate) mod restored;
mod server;

pub use client::{Client, ShimError};
pub(crate) use server::chain;
pub use server::{Begin, run};
