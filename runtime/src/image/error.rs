//! What can go wrong with images. An archive is never trusted: each refusal says what was found
//! and where.

use std::{io, path::PathBuf};

use godwit_types::Digest;

use crate::rootfs::{RootfsError, tree::PathFault};

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    // The store.
    #[error("could not {step} `{}`", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Overlayfs could not mark deleted files there.
    #[error("the file system of `{}` takes no `trusted.overlay` attributes", path.display())]
    NoXattrs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not what this program wrote", path.display())]
    Document {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` has version {found}, this program knows {known}", path.display())]
    Version {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("blob `{digest}` in the store is damaged: its digest is `{found}`")]
    Damaged { digest: Digest, found: Digest },
    #[error("image `{image}` lacks layer `{layer}`, chain id `{chain}`")]
    LayerMissing {
        image: Digest,
        layer: Digest,
        chain: Digest,
    },
    #[error("the store lacks blob `{digest}`")]
    BlobMissing { digest: Digest },
    #[error("no image `{0}`")]
    Unknown(String),
    #[error("`{0}` fits more than one image")]
    Ambiguous(String),
    #[error("image `{image}` is used by {containers}")]
    InUse { image: String, containers: String },
    #[error("image `{image}` has {count} names; it is removed by force, or name by name")]
    ManyNames { image: String, count: usize },
    #[error(
        "the layers of image `{0}` were not kept as they came: an earlier version loaded it; load or \
         pull it again"
    )]
    NoBlobs(Digest),
    #[error("which images containers use can't be told")]
    Uses(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("could not write the archive")]
    Save(#[source] io::Error),
    #[error("could not clean up the store")]
    CleanUp(#[source] RootfsError),

    // The archive as a whole.
    #[error("the archive could not be read")]
    Archive(#[source] TarFault),
    #[error("the archive is {found}, neither a docker archive nor an OCI image layout")]
    NotAnImage { found: &'static str },
    #[error("archive member `{member}` is refused")]
    MemberPath {
        member: String,
        #[source]
        source: PathFault,
    },
    #[error("archive member `{member}` is refused: it is {kind}")]
    MemberKind { member: String, kind: &'static str },
    #[error(
        "archive member `{member}` is refused: it is a link to `{target}`, which is no other member's path"
    )]
    MemberLink { member: String, target: String },
    #[error("archive member `{member}` comes twice")]
    MemberTwice { member: String },
    #[error("the archive lacks `{member}`, which `{wanted_by}` names{}",
        if *truncated { "; it is truncated" } else { "" })]
    Missing {
        member: String,
        wanted_by: String,
        truncated: bool,
    },
    #[error("the archive has {what} {found}, more than {limit}")]
    Limit {
        what: String,
        found: u64,
        limit: u64,
    },
    #[error("no space for `{what}` on `{}`: it needs {need} bytes and {free} are free", path.display())]
    NoSpace {
        what: String,
        path: PathBuf,
        need: u64,
        free: u64,
    },

    // Its documents.
    #[error("`{document}` in the archive is not valid")]
    Json {
        document: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{what}` has digest `{found}` instead of `{expected}`")]
    Digest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("`{what}` has {found} bytes instead of {expected}")]
    Size {
        what: String,
        expected: u64,
        found: u64,
    },
    #[error("media type `{found}` of {what} is not supported")]
    MediaType { what: String, found: String },
    #[error("the archive has no image for {wanted}; it has {found}")]
    Platform { wanted: String, found: String },
    #[error("image `{image}` has {layers} layers, its configuration names {diff_ids}")]
    LayerCount {
        image: Digest,
        layers: usize,
        diff_ids: usize,
    },
    #[error("image `{image}` has no layers")]
    NoLayers { image: Digest },
    #[error("image name `{name}` is not valid")]
    Name {
        name: String,
        #[source]
        source: godwit_types::IdError,
    },

    #[error("could not unpack layer `{layer}`")]
    Layer {
        /// What the image's configuration calls it: the digest of the uncompressed layer.
        layer: Digest,
        #[source]
        source: LayerFault,
    },
}

/// Why a tar stream could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum TarFault {
    #[error("reading failed after {read} bytes")]
    Read {
        read: u64,
        #[source]
        source: io::Error,
    },
    #[error("it is truncated: it ends after {read} bytes, in {within}")]
    Truncated { read: u64, within: String },
    #[error("it is not a tar archive, or damaged, at byte {at}")]
    Header {
        at: u64,
        #[source]
        source: io::Error,
    },
    #[error("it is malformed at byte {at}: {what}")]
    Malformed { at: u64, what: &'static str },
    #[error("its {what} is more than {limit}")]
    Limit { what: &'static str, limit: u64 },
}

/// Why a layer was refused, or could not be unpacked. Paths are inside the layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerFault {
    #[error("the layer could not be read")]
    Tar(#[source] TarFault),
    #[error("entry `{entry}` is refused")]
    Path {
        entry: String,
        #[source]
        source: PathFault,
    },
    #[error("entry `{entry}` is refused: it is a {kind} device, and images bring no devices")]
    Device { entry: String, kind: &'static str },
    #[error("entry `{entry}` is refused: tar type `{kind}` is not supported")]
    Kind { entry: String, kind: char },
    #[error("entry `{entry}` is refused: `{parent}` is no directory in the layer")]
    Parent { entry: String, parent: String },
    #[error("entry `{entry}` is refused: its hard link's target `{target}` is not in the layer")]
    LinkTarget { entry: String, target: String },
    #[error("entry `{entry}` is refused: a whiteout has no such name")]
    Whiteout { entry: String },
    #[error("entry `{entry}` is refused: it would replace a directory that has content")]
    Replaces { entry: String },
    #[error("entry `{entry}` is refused: it has {what}")]
    Attribute { entry: String, what: &'static str },
    #[error("it has more than {limit} entries")]
    Entries { limit: u64 },
    #[error("no space for `{entry}`: it needs {need} bytes and {free} are free")]
    NoSpace { entry: String, need: u64, free: u64 },
    #[error("its content has digest `{found}`")]
    Digest { found: Digest },
    #[error("could not {step} `{entry}`")]
    Io {
        step: &'static str,
        entry: String,
        #[source]
        source: io::Error,
    },
}
