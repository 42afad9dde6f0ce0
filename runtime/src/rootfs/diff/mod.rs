//! The writable layer as one stream: what a migration or a checkpoint carries of a root.
//!
//! Unlike tar it keeps all that overlayfs and programs rely on: holes, nanoseconds, every kind of
//! file, whiteouts and opaque directories, access lists and capabilities. The layout is in
//! `format.rs`.
//!
//! [`pack`] reads a directory that nobody writes to meanwhile. [`unpack`] fills an empty one from
//! a stream that is not trusted to stay inside it.
//!
//! [`Ahead`] sends a directory while it is written to, in rounds, each a stream of what changed
//! since the one before it; [`apply`] brings what [`unpack`] made to the next state. A stream's
//! [`Mark`] says what the next one is against.

mod ahead;
mod content;
mod error;
mod format;
mod known;
mod look;
mod pack;
mod unpack;

pub use ahead::{Ahead, Mapped};
pub use error::DiffError;
pub use pack::{PackReport, pack};
pub use unpack::{Rules, UnpackReport, apply, base, unpack, unpack_with};

/// The state that a stream brings a layer to: the checksum at its end, which covers that of the
/// stream before it, and so on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark([u8; 32]);

impl Mark {
    /// Before any stream.
    pub const NOTHING: Self = Self([0; 32]);
}
