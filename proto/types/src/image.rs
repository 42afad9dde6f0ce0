//! Images as the cluster speaks of them. Unpacking and storing is `runtime::image`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Digest, HealthOptions, IdError};

/// `name:tag`, the tag `latest` when none is given. Short names stay short: no registry is
/// added, as none is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

impl ImageName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the tag.
    pub fn repository(&self) -> &str {
        self.0.rsplit_once(':').map_or(&self.0, |(name, _)| name)
    }

    pub fn tag(&self) -> &str {
        self.0.rsplit_once(':').map_or("latest", |(_, tag)| tag)
    }
}

impl TryFrom<String> for ImageName {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        let refuse = || IdError::Name {
            what: "image name",
            value: value.chars().take(80).collect(),
        };
        let (name, tag) = match value.rsplit_once(':') {
            // A colon before a slash belongs to a port: `host:5000/name`.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (value.as_str(), "latest"),
        };
        let component = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase()
                        || b.is_ascii_digit()
                        || matches!(b, b'.' | b'_' | b'-' | b':')
                })
                && part.as_bytes()[0].is_ascii_alphanumeric()
        };
        let tag_ok = !tag.is_empty()
            && tag.len() <= 128
            && tag
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if name.len() <= 255 && tag_ok && name.split('/').all(component) {
            Ok(Self(format!("{name}:{tag}")))
        } else {
            Err(refuse())
        }
    }
}

impl From<ImageName> for String {
    fn from(value: ImageName) -> String {
        value.0
    }
}

impl FromStr for ImageName {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        Self::try_from(value.to_owned())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What an image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// Empty: `/`.
    pub working_dir: String,
    /// `user[:group]`, names or numbers. Empty: root.
    pub user: String,
    /// A name such as `SIGQUIT`, or a number. Empty: SIGTERM.
    pub stop_signal: String,
    pub labels: BTreeMap<String, String>,
    /// Where the image wants a volume, as it says it.
    pub volumes: Vec<String>,
    /// Ports that the image serves, as in `80/tcp`.
    pub exposed: Vec<String>,
    /// How it is found out whether it does its work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthOptions>,
}

/// One image in one host's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The digest of the image's configuration: what Docker calls the image id.
    pub id: Digest,
    pub names: Vec<ImageName>,
    /// Sum of the unpacked layers.
    pub size: ByteSize,
    /// Seconds since 1970, from the image's configuration. 0: not said.
    pub created: i64,
    /// As in [`ImageConfig`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_added_and_a_port_is_not_a_tag() {
        for (text, name) in [
            ("redis", "redis:latest"),
            ("redis:7", "redis:7"),
            ("a.b:5000/x/y", "a.b:5000/x/y:latest"),
        ] {
            assert_eq!(text.parse::<ImageName>().unwrap().as_str(), name);
        }
        for bad in ["", ":", "../x", "a//b", "Upper", "a:b/../c", "a:t g", "x/"] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }
}
