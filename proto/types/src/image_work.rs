//! What a host is asked to do with its images, and what it says while it does.
//!
//! Orders come from people, through the leader; unlike [`crate::Verb`]s they concern no container
//! and are not repeated by themselves. Each is answered by a stream of news, the last of which is
//! the result.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, CommandFailure, Digest, HostName, IdError, ImageName, ImageReference, ImageSummary,
};

/// A name and password for a registry. Never printed, never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredentials {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for RegistryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredentials")
            .field("username", &self.username)
            .field("password", &"…")
            .finish()
    }
}

/// `os/architecture[/variant]`, in Go's words, as images use them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImagePlatform {
    pub os: String,
    pub architecture: String,
    pub variant: Option<String>,
}

impl TryFrom<String> for ImagePlatform {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        let word = |part: &&str| {
            (1..=32).contains(&part.len())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.')
        };
        let parts: Vec<&str> = value.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(IdError::Name {
                what: "platform",
                value: value.chars().take(80).collect(),
            });
        }
        Ok(Self {
            os: parts[0].to_owned(),
            architecture: parts[1].to_owned(),
            variant: parts.get(2).map(|part| (*part).to_owned()),
        })
    }
}

impl From<ImagePlatform> for String {
    fn from(value: ImagePlatform) -> String {
        value.to_string()
    }
}

impl FromStr for ImagePlatform {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        Self::try_from(value.to_owned())
    }
}

impl fmt::Display for ImagePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// An agent that may have what another lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePeer {
    pub host: HostName,
    /// `address:port` of its agent.
    pub address: String,
}

/// What to do on one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum ImageOrder {
    /// From its registry; layers that a peer has come from there. → `Pulled`
    Pull {
        reference: ImageReference,
        /// None: the host's.
        platform: Option<ImagePlatform>,
        credentials: Option<RegistryCredentials>,
        #[serde(default)]
        peers: Vec<ImagePeer>,
    },
    /// From other agents alone. → `Pulled`
    Bring {
        image: Digest,
        names: Vec<ImageName>,
        peers: Vec<ImagePeer>,
    },
    /// To a registry. → `Pushed`
    Push {
        /// A name or an id on this host.
        image: String,
        to: ImageReference,
        credentials: Option<RegistryCredentials>,
    },
    /// Whether a registry takes these credentials. → `LoggedIn`
    Login {
        /// `host[:port]`; None: the default registry.
        registry: Option<String>,
        credentials: RegistryCredentials,
    },
    /// → `Tagged`
    Tag { image: String, name: ImageName },
    /// → `Removed`
    Remove { image: String, force: bool },
    /// Removes what nothing uses: images without a name, with `all` every image of no container.
    /// → `Removed`
    Prune { all: bool },
    /// → `Inspected`
    Inspect { image: String },
    /// → `Used`
    Usage,
}

/// What a layer, or another blob, is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerStep {
    /// Another pull or push is at it, or the limit of transfers is reached.
    Waiting,
    /// Nothing has to be sent.
    Exists,
    Downloading,
    Downloaded,
    Unpacking,
    Unpacked,
    Uploading,
    Uploaded,
    /// The registry had it in another repository.
    Mounted,
}

/// An image as one host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDetail {
    pub summary: ImageSummary,
    /// `repository@digest` of the registries that it came from or went to.
    pub repo_digests: Vec<String>,
    /// Digest of its manifest. None: nothing is known of how it came.
    pub manifest: Option<Digest>,
    /// Its configuration, the JSON document as it came.
    pub config: String,
    pub layers: Vec<LayerDetail>,
}

/// A layer of an image in a host's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDetail {
    /// Of the plain tar.
    pub diff_id: Digest,
    /// Of what is sent. None: an earlier version did not keep it.
    pub blob: Option<Digest>,
    /// Bytes of its files, unpacked.
    pub size: ByteSize,
    /// Bytes of the blob.
    pub blob_size: ByteSize,
}

/// What a host needs of an image: blobs, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageParts {
    pub config: Digest,
    /// Indexes on the way to the manifest, and that.
    pub manifests: Vec<Digest>,
    /// Bottom first.
    pub layers: Vec<BlobPart>,
    /// `repository@digest` of the registries that it came from or went to.
    pub sources: Vec<String>,
}

/// A layer as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPart {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// An image in a count of what takes room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUsage {
    pub summary: ImageSummary,
    /// What other images have as well.
    pub shared: ByteSize,
    /// What would be free without it.
    pub unique: ByteSize,
    pub containers: u32,
}

/// What one host's store takes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreUsage {
    pub images: Vec<ImageUsage>,
    /// Unpacked layers.
    pub layers: ByteSize,
    /// Layers as they are sent, manifests and configurations.
    pub blobs: ByteSize,
    /// Pulls that were interrupted.
    pub partial: ByteSize,
    /// What `prune --all` would free.
    pub reclaimable: ByteSize,
    /// Containers on this host, those that run, and their writable layers.
    pub containers: u32,
    pub running: u32,
    pub writable: ByteSize,
    /// Of the writable layers of containers that have ended.
    pub writable_reclaimable: ByteSize,
}

/// One thing a host says about an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum ImageNews {
    /// What the reference is, and who said so.
    Resolved {
        digest: Digest,
        from: String,
    },
    Layer {
        /// Twelve digits of its digest.
        layer: String,
        step: LayerStep,
        done: u64,
        total: u64,
        /// Where it comes from, where it is not the registry.
        #[serde(default)]
        from: Option<HostName>,
    },
    Pulled {
        image: ImageSummary,
        /// Of the manifest.
        digest: Digest,
        /// False: the host had it already.
        fresh: bool,
    },
    Pushed {
        digest: Digest,
        size: u64,
        to: ImageReference,
    },
    LoggedIn,
    Tagged {
        image: Digest,
        name: ImageName,
    },
    Removed {
        untagged: Vec<ImageName>,
        deleted: Vec<Digest>,
        freed: ByteSize,
    },
    Inspected {
        image: Box<ImageDetail>,
    },
    Used {
        usage: Box<StoreUsage>,
    },
    Failed {
        failure: CommandFailure,
    },
}

impl ImageNews {
    /// Whether nothing comes after it.
    pub fn is_result(&self) -> bool {
        !matches!(self, Self::Resolved { .. } | Self::Layer { .. })
    }
}

/// News with the host that they are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostImageNews {
    pub host: HostName,
    #[serde(flatten)]
    pub news: ImageNews,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let order = ImageOrder::Login {
            registry: None,
            credentials: RegistryCredentials {
                username: "ann".into(),
                password: "secret".into(),
            },
        };
        let shown = format!("{order:?}");
        assert!(
            shown.contains("ann") && !shown.contains("secret"),
            "{shown}"
        );
        let json = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<ImageOrder>(&json).unwrap(), order);
    }

    #[test]
    fn a_platform_has_two_words_or_three() {
        for good in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(good.parse::<ImagePlatform>().unwrap().to_string(), good);
        }
        for bad in ["", "linux", "linux/", "a/b/c/d", "Linux/amd64", "linux/\n"] {
            assert!(bad.parse::<ImagePlatform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn news_name_their_host_beside_them() {
        let news = HostImageNews {
            host: HostName::new("h1").unwrap(),
            news: ImageNews::LoggedIn,
        };
        let json = serde_json::to_string(&news).unwrap();
        assert_eq!(json, r#"{"host":"h1","news":"logged_in"}"#);
        assert_eq!(serde_json::from_str::<HostImageNews>(&json).unwrap(), news);
    }
}
