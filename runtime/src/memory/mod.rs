//! A container's private memory: which pages were written, and bringing them over while it runs.
//!
//! ```text
//! source                                        destination
//!   tracker   which pages of a task were          store   a sparse memory file per task: the
//!             written (userfaultfd WP_ASYNC,              offset of a page is its address
//!             or soft-dirty bits)                    │
//!   session   rounds over all tasks: frames ───────► ┘
//!   hidden    what CRIU must not dump             pager   serves the restored tasks' page faults
//!                                                         from the store, and pushes the rest
//!   left      post-copy: what stopped tasks       feed    post-copy: how it reaches the pager
//!             have that was not sent ───────────►
//! ```
//!
//! *Carried* memory is private and anonymous: what `criu restore --lazy-pages` registers with a
//! userfaultfd. Everything else stays CRIU's, inside the freeze.
//!
//! Nothing here knows how frames travel; the agent sends and receives them.

mod buffers;
mod converge;
pub mod feed;
mod fingerprint;
mod frame;
mod hidden;
mod left;
mod maps;
mod pagemap;
pub mod pager;
mod pages;
mod read;
mod session;
mod smaps;
mod store;
mod support;
mod sys;
mod tracker;

pub use converge::{Forecast, Next, Plan};
pub use fingerprint::{Fingerprint, difference, fingerprints};
pub use frame::{Content, FRAME_PAGES, Frame};
pub use hidden::{Table as HiddenTable, VARIABLE as HIDDEN_VARIABLE};
pub use left::{Left, Piece};
pub use maps::Span;
pub use session::{RoundStats, Session};
pub use smaps::{Smaps, VARIABLE as SMAPS_VARIABLE};
pub use store::{Index, Store, StoreError};
pub use support::{Reserve, Wanted};
pub use tracker::Method;

/// Bytes of a page. CRIU images are only exchanged between hosts of the same.
pub const PAGE: u64 = 4096;
