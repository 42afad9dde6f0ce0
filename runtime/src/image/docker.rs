//! A docker archive: `manifest.json` names, per image, a configuration and layers in the archive.

use godwit_types::{Digest, ImageName};
use serde::{Deserialize, Deserializer};

use super::{
    archive::Spool,
    config::MAX_LAYERS,
    error::ImageError,
    load::{Found, name},
};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const MAX_IMAGES: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default, deserialize_with = "nullable")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    layers: Vec<String>,
}

fn nullable<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

pub(super) fn images(spool: &Spool) -> Result<Vec<Found<'_>>, ImageError> {
    let items: Vec<Item> = spool.get(MANIFEST, "docker archive")?.json(MANIFEST)?;
    limit("a number of images of", items.len(), MAX_IMAGES)?;
    items.iter().map(|item| image(spool, item)).collect()
}

fn image<'a>(spool: &'a Spool, item: &Item) -> Result<Found<'a>, ImageError> {
    limit("a number of layers of", item.layers.len(), MAX_LAYERS)?;
    let config = spool.get(&item.config, MANIFEST)?;
    if let Some(expected) = named_digest(&item.config)
        && expected != config.digest
    {
        let (what, found) = (item.config.clone(), config.digest.clone());
        return Err(ImageError::Digest {
            what,
            expected,
            found,
        });
    }
    let layers = item.layers.iter().map(|layer| spool.get(layer, MANIFEST));
    Ok(Found {
        names: item
            .repo_tags
            .iter()
            .map(|tag| name(tag))
            .collect::<Result<Vec<ImageName>, _>>()?,
        config,
        manifests: Vec::new(),
        layers: layers.collect::<Result<_, _>>()?,
        sources: Vec::new(),
        any_platform: false,
    })
}

/// `<hex>.json`, or `blobs/sha256/<hex>` of an archive that is an image layout as well.
fn named_digest(path: &str) -> Option<Digest> {
    let hex = path
        .strip_suffix(".json")
        .or_else(|| path.strip_prefix("blobs/sha256/"))?;
    format!("sha256:{hex}").parse().ok()
}

pub(super) fn limit(what: &str, found: usize, limit: usize) -> Result<(), ImageError> {
    if found <= limit {
        return Ok(());
    }
    Err(ImageError::Limit {
        what: what.to_owned(),
        found: found as u64,
        limit: limit as u64,
    })
}
