//! Memory after the freeze: the container runs at the destination, and its frozen tasks here
//! still have pages that it lacks. [`crate::commands`] begins a [`Tail`] when all else was sent,
//! since already the restore touches some of them, and awaits it before it lets go of the tasks.
//!
//! ```text
//! source agent                     destination agent              pager (child of the shim)
//!   reads frozen tasks  ──pages──▶  passes on            ──────▶  puts them into the tasks
//!   what is wanted first ◀─words──  passes on            ◀──────  knows what is missing
//! ```
//!
//! What is missing is known by the pager alone. A call that breaks off, a restart of either agent
//! or of the leader changes nothing but the time it takes: the next call begins by asking.

mod arrive;
mod deliver;
mod tails;

pub use arrive::{Arrivals, relay};
pub use deliver::Tail;
pub use tails::Tails;
