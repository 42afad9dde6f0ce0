//! What a user asked for.

use serde::{Deserialize, Serialize};

use crate::{ContainerName, Digest, ImageName, Limits, NetworkAttachment, Options};

/// Everything that any host needs to run a container, complete: nothing in it depends on the
/// host. Only its name, its limits and its restart policy change after the container was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: ContainerName,
    /// As the user typed it.
    pub image: ImageName,
    /// The image's id, so that the same name on another host can't mean another image.
    pub image_id: Digest,
    /// Empty: the image's own command.
    pub command: Vec<String>,
    /// `KEY=value`; wins over the image's.
    pub env: Vec<String>,
    pub limits: Limits,
    /// None: a network namespace with nothing but loopback.
    pub network: Option<NetworkAttachment>,
    /// Empty: the first twelve digits of the container's id.
    #[serde(default)]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "Options::is_default")]
    pub options: Options,
}
