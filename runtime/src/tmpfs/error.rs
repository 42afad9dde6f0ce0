//! What can go wrong with a tmpfs archive. Paths of entries are inside the mount.

use std::{io, path::PathBuf};

use crate::{image::TarFault, rootfs::PathFault};

#[derive(Debug, thiserror::Error)]
pub enum TmpfsError {
    /// A path of the host.
    #[error("could not open the mount `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("standard input or output can't be used")]
    Standard(#[source] io::Error),
    #[error("these arguments are not CRIU's, and there is no other `tar` to give them to")]
    Unknown,
    #[error("`{}` can't be run", path.display())]
    Exec {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("could not write the archive")]
    Write(#[source] io::Error),
    #[error("the archive could not be read")]
    Archive(#[source] TarFault),
    #[error("entry `{entry}` is refused")]
    Path {
        entry: String,
        #[source]
        source: PathFault,
    },
    #[error("entry `{entry}` is refused: {what}")]
    Refused { entry: String, what: &'static str },
    #[error("could not {step} `{entry}`")]
    Entry {
        step: &'static str,
        entry: String,
        #[source]
        source: io::Error,
    },
}
