//! What can go wrong with a diff. Paths are inside the layer, unless said otherwise.

use std::{io, path::PathBuf};

use super::super::tree::PathFault;

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// The layer's own directory (a path of the host) can't be used.
    #[error("could not open the writable layer `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A path of the host.
    #[error("`{}` is not empty: a diff is unpacked into an empty directory", path.display())]
    NotEmpty { path: PathBuf },

    // Packing.
    #[error("could not read `{}`", path.display())]
    ReadEntry {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("`{}` has {what} {found}, more than {limit}", path.display())]
    TooMuch {
        path: PathBuf,
        what: &'static str,
        found: u64,
        limit: u64,
    },
    #[error("could not write the diff after {written} bytes")]
    Write {
        written: u64,
        #[source]
        source: io::Error,
    },

    // Unpacking: the stream.
    #[error("could not read the diff after {read} bytes")]
    Read {
        read: u64,
        #[source]
        source: io::Error,
    },
    #[error("the diff is truncated: it ends after {read} bytes, in {within}")]
    Truncated { read: u64, within: &'static str },
    #[error("this is not a diff of a writable layer")]
    Magic,
    #[error("the diff has version {found}, this program knows {known}")]
    Version { found: u32, known: u32 },
    #[error("the diff is malformed after {read} bytes: {what}")]
    Malformed { read: u64, what: &'static str },
    #[error("the diff's {what} of {found} is more than {limit}")]
    Limit {
        what: &'static str,
        found: u64,
        limit: u64,
    },
    #[error("the diff is damaged: its checksum does not match")]
    Checksum,

    #[error("the diff is against another state than the one that is here")]
    Base,

    // Unpacking: an entry.
    #[error("entry `{}` is refused: there is no file to be changed", path.display())]
    NoFile { path: PathBuf },
    #[error("entry `{}` is refused", path.display())]
    Path {
        path: PathBuf,
        #[source]
        source: PathFault,
    },
    #[error("entry `{}` is refused: it leads through a symlink or a file", path.display())]
    Through { path: PathBuf },
    #[error("entry `{}` is refused: it is a device, and devices are not allowed", path.display())]
    Device { path: PathBuf },
    #[error("entry `{}` is refused: extended attribute `{name}` is not carried", path.display())]
    Xattr { path: PathBuf, name: String },
    #[error("entry `{}` comes twice", path.display())]
    Twice { path: PathBuf },
    #[error("entry `{}` is a hard link to `{}`, which is no earlier entry", path.display(), target.display())]
    LinkTarget { path: PathBuf, target: PathBuf },
    #[error("no space for `{}`: it needs {need} bytes and {free} are free", path.display())]
    NoSpace { path: PathBuf, need: u64, free: u64 },
    #[error("could not {step} `{}`", path.display())]
    Entry {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
