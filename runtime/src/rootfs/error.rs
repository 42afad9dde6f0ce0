//! What can go wrong with a root.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// An image without layers has no root.
    #[error("no layers to mount on `{}`", merged.display())]
    NoLayers { merged: PathBuf },
    #[error("could not {step} `{}`", path.display())]
    Io {
        /// What was tried: `make directory`, `look at`.
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Something else than an overlay is mounted where the root belongs.
    #[error("`{}` is taken by another mount", path.display())]
    Taken { path: PathBuf },
    #[error("could not mount an overlay of {layers} layers on `{}`{detail}", merged.display())]
    Mount {
        merged: PathBuf,
        layers: usize,
        /// What the kernel says about it, or empty.
        detail: String,
        #[source]
        source: io::Error,
    },
    /// The file system can't carry containers.
    #[error("the file system of `{}` lacks {lacks}", path.display())]
    Unfit { path: PathBuf, lacks: &'static str },
    #[error("could not unmount `{}`", path.display())]
    Unmount {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not remove `{}`, and {others} other entries of its tree", path.display())]
    Remove {
        /// The first entry that stayed.
        path: PathBuf,
        others: u64,
        #[source]
        source: io::Error,
    },
}
