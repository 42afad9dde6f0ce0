//! Making images here: a writable layer becomes a layer of its own, and a new configuration above
//! it an image of the store.
//!
//! ```text
//! overlay's upper ──pack──▶ tar ──layer::unpack──▶ layers/<chain id>
//!                            └─ its digest is the diff id ─▶ blobs/sha256/<diff id>
//! Document (edited) ───────────────────────────────────────▶ blobs, then names.json
//! ```
//!
//! The tar goes through the same unpacking as one that was loaded: a layer that was made here and
//! one that came from elsewhere are the same thing, and what could not be loaded can't be made.
//!
//! `commit`, `import` and builds come here; it knows none of them.

mod document;
mod error;
mod note;
mod pack;
mod register;
mod tar_writer;

pub use document::{Document, DocumentError, Event, rfc3339};
pub use error::AuthorError;
pub use pack::{Clamp, PackFault, Packed, pack};
pub use register::Authored;
