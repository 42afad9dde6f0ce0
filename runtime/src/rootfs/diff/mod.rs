//! The writable layer as one stream: what a migration or a checkpoint carries of a root.
//!
//! Unlike tar it keeps all that overlayfs and programs rely on: holes, nanoseconds, every kind of
//! file, whiteouts and opaque directories, access lists and capabilities. The layout is in
//! `format.rs`.
//!
//! [`pack`] reads a directory that nobody writes to meanwhile. [`unpack`] fills an empty one from
//! a stream that is not trusted to stay inside it.

mod error;
mod format;
mod pack;
mod unpack;

pub use error::DiffError;
pub use pack::{PackReport, pack};
pub use unpack::{Rules, UnpackReport, unpack, unpack_with};
