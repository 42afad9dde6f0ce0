//! What can go wrong with an order about images, and whose fault it is.

use std::path::PathBuf;

use godwit_proto::failure::chain;
use godwit_runtime::{
    RuntimeError,
    image::{ImageError, manifest::ManifestError},
};
use godwit_types::{CommandFailure, Digest, FailureKind};

use super::registry::RegistryError;
use crate::failures;

#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    #[error(
        "`{0}` names no registry, and this host has no default one: write it as HOST/{0}, or set \
         `default-registry` in the configuration of its agent's images"
    )]
    NoRegistry(String),
    #[error("`{reference}` was not found{}", of(tried))]
    NotFound {
        reference: String,
        tried: Vec<String>,
    },
    #[error("no registry gave `{reference}`{}", of(tried))]
    Registries {
        reference: String,
        tried: Vec<String>,
    },
    #[error("registry `{registry}`")]
    Registry {
        registry: String,
        #[source]
        source: RegistryError,
    },
    #[error("manifest `{digest}`")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("`{reference}` has no image for {wanted}; it has {found}")]
    Platform {
        reference: String,
        wanted: String,
        found: String,
    },
    #[error("an index is in an index in an index")]
    Depth,
    #[error("blob `{digest}` did not come{}", of(tried))]
    Blob { digest: Digest, tried: Vec<String> },
    #[error("no host gave image `{image}`{}", of(tried))]
    Peers { image: Digest, tried: Vec<String> },
    #[error("can't read the registry's authority `{}`", path.display())]
    Authority {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] ImageError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

fn of(tried: &[String]) -> String {
    let mut text = String::new();
    for one in tried {
        text.push_str("; ");
        text.push_str(one);
    }
    text
}

impl ImagesError {
    /// As the leader and people are told.
    pub fn failure(&self) -> CommandFailure {
        let kind = match self {
            Self::NoRegistry(_) => FailureKind::NotFound,
            Self::NotFound { .. }
            | Self::Registries { .. }
            | Self::Registry { .. }
            | Self::Blob { .. }
            | Self::Peers { .. } => FailureKind::Registry,
            Self::Store(error) => return of_store(error),
            Self::Runtime(RuntimeError::Image(error)) => return of_store(error),
            Self::Runtime(error) => return failures::of_runtime(error),
            Self::Manifest { .. }
            | Self::Platform { .. }
            | Self::Depth
            | Self::Authority { .. } => FailureKind::Internal,
        };
        CommandFailure::new(kind, printable(&chain(self)))
    }
}

fn of_store(error: &ImageError) -> CommandFailure {
    let kind = match error {
        ImageError::Unknown(_) => FailureKind::NotFound,
        ImageError::InUse { .. } | ImageError::ManyNames { .. } | ImageError::Ambiguous(_) => {
            FailureKind::WrongState
        }
        ImageError::NoSpace { .. } => FailureKind::Unfit,
        _ => FailureKind::Internal,
    };
    CommandFailure::new(kind, printable(&chain(error)))
}

/// What a registry said may be part of a message: no control characters, and not without end.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(2000)
        .collect()
}
