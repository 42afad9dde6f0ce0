//! An image from its registry, or from other agents.
//!
//! ```text
//! reference ─▶ endpoints ─▶ manifest (through an index) ─▶ configuration
//!    ─▶ blobs that are missing, several at once: from a peer that has them, else the registry
//!    ─▶ unpack what is missing ─▶ names
//! ```
//!
//! Nothing counts before the last step. What is here before it is pinned, and what a broken off
//! pull leaves is gone on with by the next.

use std::{collections::BTreeSet, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use godwit_proto::failure::chain;
use godwit_runtime::image::{
    Arrival,
    manifest::{Manifest, Parts, choose, here},
};
use godwit_types::{
    BlobPart, Digest, ImageName, ImageNews, ImagePeer, ImagePlatform, ImageReference, ImageSummary,
    LayerStep, RegistryCredentials,
};
use tracing::{debug, info};

use super::{
    Images,
    endpoint::{Endpoint, endpoints},
    error::ImagesError,
    fetch::{self, Source, blocking},
    news::Teller,
    peers::Peer,
    registry::{Registry, RegistryError},
};
use crate::host::Host;

/// What is asked for.
pub struct Wanted {
    pub reference: ImageReference,
    pub platform: Option<ImagePlatform>,
    pub credentials: Option<RegistryCredentials>,
    pub peers: Vec<ImagePeer>,
}

/// What came, and whether any of it had to.
pub struct Pulled {
    pub image: ImageSummary,
    pub digest: Digest,
    pub fresh: bool,
}

/// A manifest that was found.
struct Found {
    registry: Arc<Registry>,
    /// Indexes, and the manifest last.
    manifests: Vec<Digest>,
    /// What the reference means: the first of them.
    digest: Digest,
    parts: Parts,
}

pub async fn pull(host: &Host, wanted: &Wanted, teller: &Teller) -> Result<Pulled, ImagesError> {
    let images = &host.images;
    let found = find(images, wanted).await?;
    teller
        .say(ImageNews::Resolved {
            digest: found.digest.clone(),
            from: found.registry.name.clone(),
        })
        .await;
    let source = format!("{}@{}", wanted.reference.repository(), found.digest);
    let arrival = Arrival {
        names: wanted.reference.name().into_iter().collect(),
        config: found.parts.config.digest.clone(),
        manifests: found.manifests,
        layers: digests(&found.parts.layers),
        sources: vec![source],
        any_platform: wanted.platform.is_some(),
    };
    let peers = wanted.peers.iter().filter(|peer| peer.host != host.name);
    let peers: Vec<_> = peers.map(|peer| Arc::new(Peer::new(host, peer))).collect();
    let work = Work {
        images,
        registry: Some(found.registry),
        peers,
        teller,
        keep: false,
    };
    work.bring(
        &arrival,
        &found.parts.config,
        &found.parts.layers,
        found.digest,
    )
    .await
}

/// The first endpoint that has it.
async fn find(images: &Images, wanted: &Wanted) -> Result<Found, ImagesError> {
    let reference = &wanted.reference;
    let candidates = endpoints(&images.config, reference);
    if candidates.is_empty() {
        return Err(ImagesError::NoRegistry(reference.to_string()));
    }
    let mut tried = Vec::new();
    let mut only_missing = true;
    for endpoint in &candidates {
        match ask(images, endpoint, wanted).await {
            Ok(found) => return Ok(found),
            Err(ImagesError::Registry { registry, source }) => {
                only_missing &= matches!(source, RegistryError::NotFound);
                tried.push(format!("registry `{registry}`: {}", chain(&source)));
            }
            Err(error) => return Err(error),
        }
    }
    let reference = reference.to_string();
    Err(if only_missing {
        ImagesError::NotFound { reference, tried }
    } else {
        ImagesError::Registries { reference, tried }
    })
}

/// A registry that answered, by the first of its schemes that works.
pub async fn reach(
    images: &Images,
    endpoint: &Endpoint,
    credentials: Option<&RegistryCredentials>,
    push: bool,
) -> Result<Registry, ImagesError> {
    let mut last = None;
    for scheme in &endpoint.schemes {
        let registry = Registry::open(&images.config, endpoint, *scheme, credentials)?;
        match registry.authorize(push).await {
            Ok(_) => return Ok(registry),
            Err(error) if error.is_unreached() => last = Some(error),
            Err(source) => {
                return Err(ImagesError::Registry {
                    registry: endpoint.registry.clone(),
                    source,
                });
            }
        }
    }
    Err(ImagesError::Registry {
        registry: endpoint.registry.clone(),
        source: last.unwrap_or(RegistryError::NotFound),
    })
}

async fn ask(images: &Images, endpoint: &Endpoint, wanted: &Wanted) -> Result<Found, ImagesError> {
    let failed = |source| ImagesError::Registry {
        registry: endpoint.registry.clone(),
        source,
    };
    let registry = reach(images, endpoint, wanted.credentials.as_ref(), false).await?;
    let digest = wanted.reference.digest().map(Digest::as_str);
    let tag = digest.or(wanted.reference.tag()).unwrap_or("latest");
    let first = registry.manifest(tag).await.map_err(failed)?;
    let digest = first.digest.clone();
    let mut manifests = Vec::new();
    let mut document = first;
    loop {
        let parsed = Manifest::parse(document.media_type.as_deref(), &document.bytes);
        let parsed = parsed.map_err(|source| ImagesError::Manifest {
            digest: document.digest.clone(),
            source,
        })?;
        let (store, bytes) = (images.store(), document.bytes.clone());
        let _using = images.store().pin(vec![document.digest.clone()]);
        blocking(move || store.keep_document(&bytes)).await?;
        manifests.push(document.digest.clone());
        match parsed {
            Manifest::Image(parts) => {
                return Ok(Found {
                    registry: Arc::new(registry),
                    manifests,
                    digest,
                    parts,
                });
            }
            Manifest::Index(_) if manifests.len() > 2 => return Err(ImagesError::Depth),
            Manifest::Index(entries) => {
                let platform = wanted.platform.clone().unwrap_or_else(here);
                let entry =
                    choose(&entries, &platform).map_err(|others| ImagesError::Platform {
                        reference: wanted.reference.to_string(),
                        wanted: platform.to_string(),
                        found: if others.is_empty() {
                            "none at all".to_owned()
                        } else {
                            others.join(", ")
                        },
                    })?;
                let next = registry.manifest(entry.digest.as_str());
                document = next.await.map_err(failed)?;
            }
        }
    }
}

fn digests(parts: &[BlobPart]) -> Vec<Digest> {
    parts.iter().map(|part| part.digest.clone()).collect()
}

/// From other agents alone. `keep`: for a container that is about to be made.
pub async fn bring(
    host: &Host,
    image: &Digest,
    names: &[ImageName],
    peers: &[ImagePeer],
    teller: &Teller,
    keep: bool,
) -> Result<Pulled, ImagesError> {
    let images = &host.images;
    let mut tried = Vec::new();
    for peer in peers.iter().filter(|peer| peer.host != host.name) {
        let first = Arc::new(Peer::new(host, peer));
        let parts = match first.describe(image).await {
            Ok(parts) => parts,
            Err(reason) => {
                tried.push(format!("host `{}`: {reason}", peer.host));
                continue;
            }
        };
        let Some(digest) = parts.manifests.last().cloned() else {
            tried.push(format!("host `{}`: it knows no manifest", peer.host));
            continue;
        };
        let others = peers.iter().filter(|other| other.host != peer.host);
        let others = others.filter(|other| other.host != host.name);
        let others = others.map(|other| Arc::new(Peer::new(host, other)));
        let work = Work {
            images,
            registry: None,
            peers: [first].into_iter().chain(others).collect(),
            teller,
            keep,
        };
        let _pin = images.store().pin(parts.manifests.clone());
        let brought = async {
            for manifest in &parts.manifests {
                work.document(manifest, peer).await?;
            }
            let manifest = images.store().read_document(&digest)?;
            let parsed = Manifest::parse(None, &manifest);
            let parsed = parsed.map_err(|source| ImagesError::Manifest {
                digest: digest.clone(),
                source,
            })?;
            let Manifest::Image(found) = parsed else {
                return Err(ImagesError::Depth);
            };
            let arrival = Arrival {
                names: names.to_vec(),
                config: found.config.digest.clone(),
                manifests: parts.manifests.clone(),
                layers: digests(&found.layers),
                sources: parts.sources.clone(),
                // It runs on another host already, or was asked for by name.
                any_platform: true,
            };
            work.bring(&arrival, &found.config, &found.layers, digest.clone())
                .await
        };
        match brought.await {
            Ok(pulled) if pulled.image.id == *image => return Ok(pulled),
            Ok(pulled) => tried.push(format!(
                "host `{}`: it gave image `{}`",
                peer.host, pulled.image.id
            )),
            // Another peer would not help.
            Err(error @ ImagesError::Store(_)) => return Err(error),
            Err(error) => tried.push(format!("host `{}`: {}", peer.host, chain(&error))),
        }
    }
    Err(ImagesError::Peers {
        image: image.clone(),
        tried,
    })
}

struct Work<'a> {
    images: &'a Images,
    registry: Option<Arc<Registry>>,
    peers: Vec<Arc<Peer>>,
    teller: &'a Teller,
    /// Something that is about to be made will use it.
    keep: bool,
}

impl Work<'_> {
    /// A manifest by its digest, from a peer.
    async fn document(&self, digest: &Digest, peer: &ImagePeer) -> Result<(), ImagesError> {
        if self.images.store().has_blob(digest) {
            return Ok(());
        }
        let from = self.peers.iter().find(|known| known.host == peer.host);
        let none = || ImagesError::Blob {
            digest: digest.clone(),
            tried: Vec::new(),
        };
        let from = from.ok_or_else(none)?;
        let bytes = from
            .document(digest)
            .await
            .map_err(|reason| ImagesError::Blob {
                digest: digest.clone(),
                tried: vec![format!("host `{}`: {reason}", peer.host)],
            })?;
        let store = self.images.store();
        blocking(move || store.keep_document(&bytes)).await?;
        Ok(())
    }

    async fn bring(
        &self,
        arrival: &Arrival,
        config: &BlobPart,
        layers: &[BlobPart],
        digest: Digest,
    ) -> Result<Pulled, ImagesError> {
        let store = self.images.store();
        let all = arrival.manifests.iter().chain(&arrival.layers);
        let all = all.chain([&arrival.config]).cloned().collect();
        let pin = store.pin(all);
        let whole = {
            let (store, arrival) = (store.clone(), arrival.clone());
            blocking(move || store.is_whole(&arrival)).await?
        };
        if !whole {
            let mut seen = BTreeSet::new();
            let parts: Vec<BlobPart> = [config]
                .into_iter()
                .chain(layers)
                .filter(|part| seen.insert(part.digest.clone()))
                .cloned()
                .collect();
            let having = self.having(&parts).await;
            let config = &config.digest;
            let fetches = parts.into_iter().map(|part| {
                let sources = self.sources(&having, &part);
                // The configuration is no layer: nobody is told of it.
                let teller = if part.digest == *config {
                    Teller::silent()
                } else {
                    self.teller.clone()
                };
                async move { fetch::blob(self.images, &part, &sources, &teller).await }
            });
            // Whoever comes first takes the turns: they are of this host, for all pulls.
            stream::iter(fetches)
                .buffer_unordered(self.images.config.max_concurrent_downloads)
                .try_collect::<()>()
                .await?;
            for layer in layers {
                self.teller
                    .layer(layer, LayerStep::Unpacking, layer.size, None)
                    .await;
            }
        }
        // Two pulls of one image unpack it once.
        let lock = self.images.blob_lock(&arrival.config);
        let _alone = lock.lock().await;
        let image = {
            let (store, arrival) = (store.clone(), arrival.clone());
            blocking(move || store.install(&arrival)).await?
        };
        if !whole {
            for layer in layers {
                self.teller
                    .layer(layer, LayerStep::Unpacked, layer.size, None)
                    .await;
            }
        }
        info!(image = image.id.short(), fresh = !whole, "image is here");
        if self.keep {
            self.images.keep_for_a_while(&image.id, pin);
        }
        Ok(Pulled {
            image,
            digest,
            fresh: !whole,
        })
    }

    /// What each peer has of these.
    async fn having(&self, parts: &[BlobPart]) -> Vec<(Arc<Peer>, BTreeSet<Digest>)> {
        let store = self.images.store();
        let missing = parts.iter().map(|part| &part.digest);
        let missing: Vec<_> = missing
            .filter(|digest| !store.has_blob(digest))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let asked = self.peers.iter().map(|peer| {
            let missing = &missing;
            async move {
                match peer.have(missing).await {
                    Ok(found) => Some((peer.clone(), found)),
                    Err(reason) => {
                        debug!(host = %peer.host, reason, "peer says nothing of its blobs");
                        None
                    }
                }
            }
        });
        let said = futures::future::join_all(asked).await;
        said.into_iter().flatten().collect()
    }

    fn sources(&self, having: &[(Arc<Peer>, BTreeSet<Digest>)], part: &BlobPart) -> Vec<Source> {
        let peers = having
            .iter()
            .filter(|(_, found)| found.contains(&part.digest));
        let peers = peers.map(|(peer, _)| Source::Peer(peer.clone()));
        let registry = self.registry.clone().map(Source::Registry);
        peers.chain(registry).collect()
    }
}
