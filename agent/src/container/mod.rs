//! The containers of this host: what may be done with one, and what that changes.

pub mod admission;
pub mod effect;
