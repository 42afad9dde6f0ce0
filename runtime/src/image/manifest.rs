//! Manifests and indexes as registries serve them: OCI's, and Docker's of schema 2, which are the
//! same documents under other names. Pure: bytes in, what they describe out.
//!
//! A document that could be read as both is refused: two readers would see two images.

use godwit_types::{BlobPart, Digest, ImagePlatform};
use serde::Deserialize;

use super::{
    archive::MAX_DOCUMENT,
    config::MAX_LAYERS,
    oci::{CONFIGS, INDEXES, LAYERS, MANIFESTS, MAX_DESCRIPTORS},
};

/// What to ask a registry for.
pub const ACCEPTED: [&str; 4] = [MANIFESTS[0], MANIFESTS[1], INDEXES[0], INDEXES[1]];
/// The most bytes of a manifest, an index or a configuration.
pub const MAX_MANIFEST: u64 = MAX_DOCUMENT;
/// More than any disk has, and small enough that sums do not overflow.
const MAX_BLOB: u64 = 1 << 50;

/// Why a document is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("it is not valid")]
    Json(#[from] serde_json::Error),
    #[error("it has {0} bytes, more than {MAX_MANIFEST}")]
    Length(usize),
    #[error("it has schema version {0}; only 2 is understood")]
    Schema(u64),
    #[error("its media type `{0}` is not supported")]
    MediaType(String),
    #[error("it is called `{called}` and says that it is `{says}`")]
    Disagree { called: String, says: String },
    #[error("it could be an index as well as a manifest")]
    Ambiguous,
    #[error("media type `{found}` of {what} is not supported")]
    Part { what: String, found: String },
    #[error("it has {found} {what}, more than {limit}")]
    Limit {
        what: &'static str,
        found: u64,
        limit: u64,
    },
    #[error("it has no layers")]
    NoLayers,
}

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manifest {
    Index(Vec<Described>),
    Image(Parts),
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub digest: Digest,
    pub size: u64,
    /// None: not said.
    pub platform: Option<ImagePlatform>,
    is_image: bool,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub config: BlobPart,
    /// Bottom first; at least one.
    pub layers: Vec<BlobPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    config: Option<Entry>,
    #[serde(default)]
    layers: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Manifest {
    /// `called`: the media type that came with it, if one did.
    pub fn parse(called: Option<&str>, json: &[u8]) -> Result<Self, ManifestError> {
        if json.len() as u64 > MAX_MANIFEST {
            return Err(ManifestError::Length(json.len()));
        }
        let document: Document = serde_json::from_slice(json)?;
        if document.schema_version != 2 {
            return Err(ManifestError::Schema(document.schema_version));
        }
        let called = called.map(|text| text.split(';').next().unwrap_or(text).trim());
        // What a server without a notion of it says is as nothing.
        let called = called.filter(|text| !matches!(*text, "" | "application/json" | "text/plain"));
        let media_type = match (called, document.media_type.as_deref()) {
            (Some(called), Some(says)) if called != says => {
                return Err(ManifestError::Disagree {
                    called: shown(called),
                    says: shown(says),
                });
            }
            (called, says) => says.or(called),
        };
        let index = document.manifests.is_some();
        let image = document.config.is_some() || document.layers.is_some();
        if index == image {
            return Err(ManifestError::Ambiguous);
        }
        if let Some(text) = media_type {
            let known: &[&str] = if index { &INDEXES } else { &MANIFESTS };
            if !known.contains(&text) {
                return Err(ManifestError::MediaType(shown(text)));
            }
        }
        match (document.manifests, document.config) {
            (Some(entries), _) => entries_of(entries).map(Self::Index),
            (None, Some(config)) => {
                parts(config, document.layers.unwrap_or_default()).map(Self::Image)
            }
            (None, None) => Err(ManifestError::Ambiguous),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

fn limit(what: &'static str, found: u64, limit: u64) -> Result<(), ManifestError> {
    if found <= limit {
        return Ok(());
    }
    Err(ManifestError::Limit { what, found, limit })
}

fn entries_of(entries: Vec<Entry>) -> Result<Vec<Described>, ManifestError> {
    limit("manifests", entries.len() as u64, MAX_DESCRIPTORS as u64)?;
    let described = entries.into_iter().map(|entry| {
        let known = entry.media_type.as_str();
        let is_image = known.is_empty() || MANIFESTS.contains(&known);
        Described {
            platform: entry.platform.map(|platform| ImagePlatform {
                os: shown(&platform.os),
                architecture: shown(&platform.architecture),
                variant: platform.variant.as_deref().map(shown),
            }),
            digest: entry.digest,
            size: entry.size,
            is_image,
        }
    });
    Ok(described.collect())
}

fn parts(config: Entry, layers: Vec<Entry>) -> Result<Parts, ManifestError> {
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(ManifestError::Part {
            what: "its configuration".into(),
            found: shown(&config.media_type),
        });
    }
    limit("bytes of a configuration", config.size, MAX_MANIFEST)?;
    limit("layers", layers.len() as u64, MAX_LAYERS as u64)?;
    if layers.is_empty() {
        return Err(ManifestError::NoLayers);
    }
    for layer in &layers {
        if !LAYERS.contains(&layer.media_type.as_str()) {
            return Err(ManifestError::Part {
                what: format!("layer `{}`", layer.digest),
                found: shown(&layer.media_type),
            });
        }
        limit("bytes of a layer", layer.size, MAX_BLOB)?;
    }
    let part = |entry: Entry| BlobPart {
        digest: entry.digest,
        size: entry.size,
        media_type: entry.media_type,
    };
    Ok(Parts {
        config: part(config),
        layers: layers.into_iter().map(part).collect(),
    })
}

/// The image for a platform among those of an index. An error: the platforms that there are.
pub fn choose<'a>(
    entries: &'a [Described],
    wanted: &ImagePlatform,
) -> Result<&'a Described, Vec<String>> {
    let fits = |entry: &&Described| {
        entry.is_image
            && entry.platform.as_ref().is_none_or(|found| {
                found.os == wanted.os
                    && found.architecture == wanted.architecture
                    && (wanted.variant.is_none() || wanted.variant == found.variant)
            })
    };
    entries.iter().find(fits).ok_or_else(|| {
        let said = entries.iter().filter_map(|entry| entry.platform.as_ref());
        // What builders attach to an image is for no platform.
        let known = said.filter(|platform| platform.os != "unknown");
        known.map(ToString::to_string).take(16).collect()
    })
}

/// This host's platform.
pub fn here() -> ImagePlatform {
    let here = super::config::Platform::here();
    ImagePlatform {
        os: here.os,
        architecture: here.architecture,
        variant: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn digest(n: u8) -> String {
        Digest::from_sha256([n; 32]).to_string()
    }

    fn image() -> serde_json::Value {
        json!({"schemaVersion": 2, "mediaType": MANIFESTS[0],
            "config": {"mediaType": CONFIGS[0], "digest": digest(1), "size": 10},
            "layers": [{"mediaType": LAYERS[1], "digest": digest(2), "size": 20}]})
    }

    fn parse(value: &serde_json::Value) -> Result<Manifest, ManifestError> {
        Manifest::parse(None, &serde_json::to_vec(value).unwrap())
    }

    #[test]
    fn a_manifest_of_either_kind_is_understood() {
        let Manifest::Image(parts) = parse(&image()).unwrap() else {
            panic!("no image");
        };
        assert_eq!((parts.config.size, parts.layers[0].size), (10, 20));
        let mut docker = image();
        docker["mediaType"] = MANIFESTS[1].into();
        docker["config"]["mediaType"] = CONFIGS[1].into();
        docker["layers"][0]["mediaType"] = LAYERS[4].into();
        assert!(matches!(parse(&docker), Ok(Manifest::Image(_))));
    }

    #[test]
    fn an_index_gives_the_image_of_a_platform() {
        let entry = |n: u8, arch: &str| {
            json!({"mediaType": MANIFESTS[0], "digest": digest(n), "size": 1,
                "platform": {"os": "linux", "architecture": arch}})
        };
        let index = json!({"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [
            {"mediaType": MANIFESTS[0], "digest": digest(8), "size": 1,
                "platform": {"os": "unknown", "architecture": "unknown"}},
            entry(1, "arm64"), entry(2, "amd64")]});
        let Manifest::Index(entries) = parse(&index).unwrap() else {
            panic!("no index");
        };
        let amd: ImagePlatform = "linux/amd64".parse().unwrap();
        assert_eq!(choose(&entries, &amd).unwrap().digest.as_str(), digest(2));
        let other = choose(&entries, &"linux/s390x".parse().unwrap());
        assert_eq!(other, Err(vec!["linux/arm64".into(), "linux/amd64".into()]));
    }

    #[test]
    fn what_can_be_read_in_two_ways_or_in_none_is_refused() {
        let mut both = image();
        both["manifests"] = json!([]);
        assert!(matches!(parse(&both), Err(ManifestError::Ambiguous)));
        let bytes = serde_json::to_vec(&image()).unwrap();
        let lied = Manifest::parse(Some(INDEXES[0]), &bytes);
        assert!(matches!(lied, Err(ManifestError::Disagree { .. })));
        let mut one = image();
        one["schemaVersion"] = 1.into();
        assert!(matches!(parse(&one), Err(ManifestError::Schema(1))));
        let mut huge = image();
        huge["layers"][0]["size"] = u64::MAX.into();
        assert!(matches!(parse(&huge), Err(ManifestError::Limit { .. })));
        let mut odd = image();
        odd["layers"][0]["mediaType"] = "application/x-\u{1b}[2J".into();
        let text = parse(&odd).unwrap_err().to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for bad in ["", "{}", "[]", "null", "{\"schemaVersion\":2}"] {
            assert!(Manifest::parse(None, bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
