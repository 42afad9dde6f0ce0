//! An OCI image layout: `index.json` describes manifests, or further indexes, in
//! `blobs/sha256/`. Docker's schema 2 types are the same documents under other names.

use std::collections::BTreeMap;

use godwit_types::{BlobPart, Digest, ImageName};
use serde::Deserialize;

use super::{
    archive::{Blob, Spool},
    compression,
    config::{MAX_LAYERS, Platform},
    docker::{MAX_IMAGES, limit},
    error::ImageError,
    load::{Found, name},
    names::failed,
};

pub(super) const INDEX: &str = "index.json";
/// An index in an index in an index.
const MAX_DEPTH: usize = 3;
/// What an index may describe.
pub(super) const MAX_DESCRIPTORS: usize = 1024;

pub(super) const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
pub(super) const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
pub(super) const CONFIGS: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// How they are compressed, their first bytes tell.
pub(super) const LAYERS: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// The images of this host's platform.
pub(super) fn images(spool: &Spool) -> Result<Vec<Found<'_>>, ImageError> {
    let index: Index = spool.get(INDEX, "OCI image layout")?.json(INDEX)?;
    let mut choice = Choice {
        spool,
        others: Vec::new(),
    };
    limit(
        "a number of manifests of",
        index.manifests.len(),
        MAX_DESCRIPTORS,
    )?;
    let mut images: Vec<Found<'_>> = Vec::new();
    for descriptor in &index.manifests {
        let Some((manifest, blobs)) = choice.manifest(descriptor, Vec::new(), INDEX, 1)? else {
            continue;
        };
        limit("a number of images of", images.len() + 1, MAX_IMAGES)?;
        let mut found = image(spool, &manifest, blobs)?;
        found.names = names(descriptor)?;
        // One image under several names is described several times.
        match images
            .iter_mut()
            .find(|other| other.config.digest == found.config.digest)
        {
            Some(other) => other.names.append(&mut found.names),
            None => images.push(found),
        }
    }
    if images.is_empty() {
        let found = match choice.others.as_slice() {
            [] => "none at all".to_owned(),
            others => format!("`{}`", others.join("`, `")),
        };
        return Err(ImageError::Platform {
            wanted: Platform::here().to_string(),
            found,
        });
    }
    Ok(images)
}

struct Choice<'a> {
    spool: &'a Spool,
    /// Platforms that were passed over.
    others: Vec<String>,
}

impl<'a> Choice<'a> {
    /// The manifest for this platform at or below a descriptor, and the blobs on the way to it.
    fn manifest(
        &mut self,
        descriptor: &Descriptor,
        mut blobs: Vec<&'a Blob>,
        wanted_by: &str,
        depth: usize,
    ) -> Result<Option<(Manifest, Vec<&'a Blob>)>, ImageError> {
        if let Some(platform) = &descriptor.platform
            && !platform.fits()
        {
            if self.others.len() < 16 {
                self.others.push(platform.to_string());
            }
            return Ok(None);
        }
        let what = descriptor.digest.as_str();
        let media_type = descriptor.media_type.as_str();
        if MANIFESTS.contains(&media_type) {
            let blob = blob(self.spool, descriptor, wanted_by)?;
            blobs.push(blob);
            return Ok(Some((blob.json(what)?, blobs)));
        }
        if !INDEXES.contains(&media_type) {
            return Err(media(format!("manifest `{what}`"), descriptor));
        }
        limit("a depth of indexes of", depth, MAX_DEPTH)?;
        let blob = blob(self.spool, descriptor, wanted_by)?;
        blobs.push(blob);
        let index: Index = blob.json(what)?;
        limit(
            "a number of manifests of",
            index.manifests.len(),
            MAX_DESCRIPTORS,
        )?;
        for below in &index.manifests {
            if let Some(found) = self.manifest(below, blobs.clone(), what, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

fn image<'a>(
    spool: &'a Spool,
    manifest: &Manifest,
    manifests: Vec<&'a Blob>,
) -> Result<Found<'a>, ImageError> {
    let wanted_by = manifests.last().map_or(INDEX, |blob| blob.digest.as_str());
    if !CONFIGS.contains(&manifest.config.media_type.as_str()) {
        return Err(media(
            format!("configuration `{}`", manifest.config.digest),
            &manifest.config,
        ));
    }
    limit("a number of layers of", manifest.layers.len(), MAX_LAYERS)?;
    let mut layers = Vec::with_capacity(manifest.layers.len());
    for layer in &manifest.layers {
        if !LAYERS.contains(&layer.media_type.as_str()) {
            return Err(media(format!("layer `{}`", layer.digest), layer));
        }
        layers.push(blob(spool, layer, wanted_by)?);
    }
    let config = blob(spool, &manifest.config, wanted_by)?;
    Ok(Found {
        names: Vec::new(),
        config,
        manifests,
        layers,
        sources: Vec::new(),
        any_platform: false,
    })
}

/// The blob that a descriptor describes, if it is what the descriptor says.
fn blob<'a>(
    spool: &'a Spool,
    descriptor: &Descriptor,
    wanted_by: &str,
) -> Result<&'a Blob, ImageError> {
    let path = format!("blobs/sha256/{}", descriptor.digest.hex());
    let blob = spool.get(&path, wanted_by)?;
    if blob.size != descriptor.size {
        let (expected, found) = (descriptor.size, blob.size);
        return Err(ImageError::Size {
            what: path,
            expected,
            found,
        });
    }
    if blob.digest != descriptor.digest {
        let (expected, found) = (descriptor.digest.clone(), blob.digest.clone());
        return Err(ImageError::Digest {
            what: path,
            expected,
            found,
        });
    }
    Ok(blob)
}

fn media(what: String, descriptor: &Descriptor) -> ImageError {
    ImageError::MediaType {
        what,
        found: descriptor.media_type.chars().take(100).collect(),
    }
}

/// The layers that a manifest names, as they are sent.
pub(super) fn layers_of(name: &str, json: &[u8]) -> Result<Vec<BlobPart>, ImageError> {
    let manifest: Manifest = serde_json::from_slice(json).map_err(|source| ImageError::Json {
        document: name.to_owned(),
        source,
    })?;
    let part = |layer: Descriptor| BlobPart {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type,
    };
    Ok(manifest.layers.into_iter().map(part).collect())
}

/// A manifest for what came without one.
pub(super) fn manifest_for(
    config: &Blob,
    layers: &[&Blob],
) -> Result<(Vec<u8>, Vec<BlobPart>), ImageError> {
    let mut parts = Vec::with_capacity(layers.len());
    for layer in layers {
        let kind = compression::kind(&layer.path).map_err(failed("read", &layer.path))?;
        parts.push(BlobPart {
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: LAYERS[kind as usize].to_owned(),
        });
    }
    let described = |media_type: &str, digest: &Digest, size: u64| serde_json::json!({"mediaType": media_type, "digest": digest, "size": size});
    let each = parts
        .iter()
        .map(|part| described(&part.media_type, &part.digest, part.size));
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFESTS[0],
        "config": described(CONFIGS[0], &config.digest, config.size),
        "layers": each.collect::<Vec<_>>(),
    });
    Ok((manifest.to_string().into_bytes(), parts))
}

/// Docker writes the whole name beside a mere tag; others write the whole name, or a bare one,
/// where Docker has the tag.
fn names(descriptor: &Descriptor) -> Result<Vec<ImageName>, ImageError> {
    let Some(annotations) = &descriptor.annotations else {
        return Ok(Vec::new());
    };
    match (annotations.get(NAME), annotations.get(REF_NAME)) {
        (Some(whole), _) => Ok(vec![name(whole)?]),
        (None, Some(text)) if is_tag(text) => Ok(Vec::new()),
        (None, Some(text)) => Ok(vec![name(text)?]),
        (None, None) => Ok(Vec::new()),
    }
}

/// `latest`, `7.2`, `v1`: a tag of nothing. `redis` and `redis:7` are names.
fn is_tag(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or(text);
    text == "latest"
        || (!text.contains([':', '/']) && digits.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_tag_names_nothing() {
        for (text, tag) in [
            ("latest", true),
            ("7.2", true),
            ("v1", true),
            ("redis", false),
            ("redis:7", false),
        ] {
            assert_eq!(is_tag(text), tag, "{text}");
        }
    }
}
