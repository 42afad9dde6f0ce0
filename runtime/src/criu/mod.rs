//! CRIU, driven through `criu swrk`: one request, its notifications, one answer.
//!
//! dump, restore and the names of notifications are CRIU's words and stay in here; the shim
//! turns them into freeze and stage.

mod check;
mod log;
mod options;
mod swrk;
mod tools;

pub use check::{Checked, check};
pub use log::reason;
pub use options::{Bind, DumpOptions, RestoreOptions, descriptors, pipe_key};
pub use swrk::{CriuError, Event, Launch, Leaving, Program, Swrk};
pub use tools::tools;
