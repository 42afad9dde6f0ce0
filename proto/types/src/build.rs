//! What a build, a commit and an import are asked for, and what a build says while it goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{HostName, ImageName, ImageSummary, Limits};

/// A build. The context follows as a tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BuildRequest {
    /// What the image is called; none: only its id.
    pub names: Vec<ImageName>,
    /// The Dockerfile: its path in the context, and its name in messages.
    pub file: String,
    /// The Dockerfile itself, where it is not to be taken from the context.
    pub text: Option<String>,
    /// `--build-arg`
    pub arguments: BTreeMap<String, String>,
    /// `--label`: set on the image besides the Dockerfile's.
    pub labels: BTreeMap<String, String>,
    /// The stage that is asked for. None: the last.
    pub target: Option<String>,
    /// Every step is done, whatever is known of it.
    pub no_cache: bool,
    /// Steps have no network but loopback.
    pub no_network: bool,
    /// Of each step's container.
    pub limits: Limits,
}

impl Default for BuildRequest {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            file: "Dockerfile".to_owned(),
            text: None,
            arguments: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            no_cache: false,
            no_network: false,
            limits: Limits::default(),
        }
    }
}

/// Where a step's output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildOutput {
    Stdout,
    Stderr,
}

/// What a build says. The last is `Built`; a build that fails ends with a status in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// The context is here.
    Context {
        host: HostName,
        bytes: u64,
    },
    /// A step begins.
    Step {
        /// Of the whole build, from 1.
        number: u32,
        /// Which stage, and where in it: `builder 2/4`.
        place: String,
        /// The instruction, on one line.
        text: String,
        /// Of the Dockerfile, from 1.
        line: u32,
    },
    /// Its result was known.
    Cached {
        number: u32,
    },
    Output {
        number: u32,
        stream: BuildOutput,
        text: String,
    },
    Done {
        number: u32,
        millis: u64,
    },
    Warning {
        text: String,
    },
    Built {
        host: HostName,
        image: Box<ImageSummary>,
    },
}

/// An image from what a container changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// Name, id, or the beginning of an id.
    pub container: String,
    pub name: Option<ImageName>,
    #[serde(default)]
    pub author: String,
    #[serde(default)]
    pub message: String,
    /// Dockerfile instructions, as in `CMD ["x"]`.
    #[serde(default)]
    pub changes: Vec<String>,
    /// It stands still while its files are read.
    pub pause: bool,
}

/// An image from a root file system, which follows as a tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    pub name: Option<ImageName>,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub changes: Vec<String>,
    /// Seconds since 1970: the same on every host, so that the image is.
    pub created: i64,
}
