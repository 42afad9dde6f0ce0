//! Why a build failed, with the place in the Dockerfile.

use godwit_proto::failure::chain;
use godwit_runtime::{
    RuntimeError,
    build::{BuildFault, CacheError, Refused, archive::ArchiveFault, copy::CopyFault},
    image::author::{AuthorError, DocumentError},
    rootfs::RootfsError,
};
use godwit_types::{CommandFailure, FailureKind};

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Dockerfile(#[from] BuildFault),
    #[error("the context has no `{0}`")]
    NoDockerfile(String),
    #[error("`{0}` can't be read")]
    Unreadable(String, #[source] std::io::Error),
    #[error("the context is refused")]
    Context(#[source] ArchiveFault),
    #[error("{file}:{line}: `{text}` ended with exit code {code}")]
    Exit {
        file: String,
        line: u32,
        text: String,
        code: i32,
    },
    #[error("{file}:{line}: `{text}`")]
    Step {
        file: String,
        line: u32,
        text: String,
        #[source]
        source: Box<StepError>,
    },
    #[error("the image")]
    Image(#[source] AuthorError),
    #[error("the build can't be prepared: `{0}`")]
    Prepare(String, #[source] std::io::Error),
    #[error("the image has no files: no instruction makes one")]
    Empty,
    #[error("the build was cancelled")]
    Cancelled,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("image `{0}` is not on this host: load it, or build where it is")]
    NoImage(String),
    #[error("there is nothing in the image that could run")]
    NothingToRun,
    #[error(transparent)]
    Copy(#[from] CopyFault),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Author(#[from] AuthorError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("owner `{owner}`")]
    Owner {
        owner: String,
        #[source]
        source: godwit_runtime::container::UserError,
    },
    #[error("`{0}`")]
    Io(String, #[source] std::io::Error),
    #[error("it ended with exit code {0}")]
    Exit(i32),
    #[error("interrupted")]
    Interrupted,
}

impl BuildError {
    pub fn failure(&self) -> CommandFailure {
        let kind = match self {
            Self::Dockerfile(_) | Self::NoDockerfile(_) | Self::Context(_) | Self::Exit { .. } => {
                FailureKind::WrongState
            }
            Self::Step { source, .. } => match **source {
                StepError::NoImage(_) => FailureKind::NotFound,
                StepError::Refused(_) | StepError::Copy(_) | StepError::NothingToRun => {
                    FailureKind::WrongState
                }
                _ => FailureKind::Internal,
            },
            _ => FailureKind::Internal,
        };
        CommandFailure::new(kind, chain(self))
    }
}
