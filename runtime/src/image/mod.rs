//! Images of one host: loaded from archives, unpacked once, addressed by their content.
//!
//! ```text
//! <root>/lock                     flock: whoever changes what is below
//! <root>/names.json               which images there are, and their names
//! <root>/blobs/sha256/<hex>       configurations, manifests and layers, as they came
//! <root>/notes/<id>.json          which blobs an image is made of, and where it came from
//! <root>/ingest/<hex>             blobs that have not come whole yet
//! <root>/layers/<chain id>/fs     one unpacked layer above its parents: an overlay's lower layer
//! <root>/layers/<chain id>/layer.json    its digest and size
//! <root>/tmp/<random>             a load under way; holds a flock while it is
//! ```
//!
//! A load goes: spool the archive's members to `tmp` → read its documents (`docker.rs`, `oci.rs`)
//! → unpack the layers that are missing (`layer.rs`) → sync → under the lock, move layers into
//! place, write blobs, and last `names.json`. So a load that fails or is cut off leaves nothing
//! that counts, and what was there stays.
//!
//! A layer's directory is named by its chain id (the OCI image specification's digest over the
//! layer and all below it), since what a layer unpacks to may depend on its parents.
//!
//! Everything here blocks; callers are on a thread that may. It knows no registry and no
//! container.

mod archive;
pub mod author;
mod collect;
pub(crate) mod compression;
mod config;
mod docker;
mod error;
mod ingest;
mod install;
mod layer;
mod load;
pub mod manifest;
mod names;
mod note;
mod oci;
mod read;
mod save;
mod store;
pub(crate) mod tar_reader;

pub use collect::{Freed, Uses};
pub use config::digest;
pub use error::{ImageError, LayerFault, TarFault};

pub use ingest::Ingest;
pub use install::Arrival;
pub use read::checked_query;
pub use save::Selection;
pub use store::{Image, Pin, Store};

/// This host's platform as images name it: `linux/amd64`.
pub fn platform() -> String {
    config::Platform::here().to_string()
}
