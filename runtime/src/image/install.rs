//! An image whose blobs are in the store already: unpacked, and given its names.

use godwit_types::{Digest, ImageName, ImageSummary};

use super::{
    archive::Blob,
    error::ImageError,
    load::{self, Found},
    store::Store,
};

/// What came from a registry or from another host.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub names: Vec<ImageName>,
    pub config: Digest,
    /// Indexes on the way to the manifest, and that.
    pub manifests: Vec<Digest>,
    /// Bottom first, perhaps compressed.
    pub layers: Vec<Digest>,
    /// `repository@digest` of the registry.
    pub sources: Vec<String>,
    /// Another platform than this host's was asked for.
    pub any_platform: bool,
}

impl Store {
    /// Whether all of the image is here already, unpacked and as it is sent.
    pub fn is_whole(&self, arrival: &Arrival) -> Result<bool, ImageError> {
        let blobs = arrival.manifests.iter().chain(&arrival.layers);
        let blobs = blobs.chain([&arrival.config]);
        let all = blobs.into_iter().all(|digest| self.has_blob(digest));
        Ok(all && self.get(&arrival.config).is_ok_and(|image| image.is_some()))
    }

    /// Unpacks what is missing and makes the image one of this store's. Its blobs are here.
    pub fn install(&self, arrival: &Arrival) -> Result<ImageSummary, ImageError> {
        let blob = |digest: &Digest| {
            let (_, size) = self
                .open_blob(digest)?
                .ok_or_else(|| ImageError::BlobMissing {
                    digest: digest.clone(),
                })?;
            Ok::<_, ImageError>(Blob {
                path: self.blob(digest),
                size,
                digest: digest.clone(),
            })
        };
        let all = |digests: &[Digest]| digests.iter().map(blob).collect::<Result<Vec<_>, _>>();
        let (manifests, layers) = (all(&arrival.manifests)?, all(&arrival.layers)?);
        let config = blob(&arrival.config)?;
        // Documents are believed from now on: that they are what they are called.
        for digest in arrival.manifests.iter().chain([&arrival.config]) {
            self.document(digest)?;
        }
        let found = Found {
            names: arrival.names.clone(),
            config: &config,
            manifests: manifests.iter().collect(),
            layers: layers.iter().collect(),
            sources: arrival.sources.clone(),
            any_platform: arrival.any_platform,
        };
        let mut summaries = load::in_temporary(self, |tmp| {
            let _using = self.using();
            load::unpack_and_commit(self, tmp, vec![found])
        })?;
        summaries.pop().ok_or(ImageError::BlobMissing {
            digest: arrival.config.clone(),
        })
    }
}
