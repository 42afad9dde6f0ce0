//! Why an image could not be made.

use std::{io, path::PathBuf};

use godwit_types::Digest;

use super::{document::DocumentError, pack::PackFault};
use crate::image::{ImageError, LayerFault};

#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    #[error(transparent)]
    Store(#[from] ImageError),
    #[error("image `{0}` is not on this host")]
    NoImage(String),
    #[error("the writable layer can't be made a layer of an image")]
    Pack(#[from] PackFault),
    #[error("the new layer `{layer}` can't be unpacked")]
    Layer {
        layer: Digest,
        #[source]
        source: LayerFault,
    },
    #[error("the root file system can't be read")]
    Input(#[source] io::Error),
    #[error("image configuration")]
    Document(#[from] DocumentError),
    #[error("an image has at most {limit} layers, this one would have more")]
    Layers { limit: usize },
    #[error("could not {step} `{}`", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}
