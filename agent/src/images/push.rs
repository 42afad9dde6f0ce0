//! An image to a registry: the blobs that it lacks, and the manifest last.

use std::{collections::BTreeMap, io::Read as _, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use godwit_types::{BlobPart, Digest, ImageNews, ImageReference, LayerStep, RegistryCredentials};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Images,
    endpoint::target,
    error::ImagesError,
    fetch::blocking,
    news::Teller,
    pull::reach,
    registry::{Registry, RegistryError},
};

const AHEAD: usize = 4;
const CHUNK: usize = 128 << 10;

pub async fn push(
    images: &Images,
    image: &str,
    to: &ImageReference,
    credentials: Option<&RegistryCredentials>,
    teller: &Teller,
) -> Result<ImageNews, ImagesError> {
    let endpoint =
        target(&images.config, to).ok_or_else(|| ImagesError::NoRegistry(to.to_string()))?;
    let (store, query) = (images.store(), image.to_owned());
    let (id, parts) = blocking(move || {
        let id = store.resolve(&query)?;
        Ok::<_, ImagesError>((id.clone(), store.parts(&id)?))
    })
    .await?;
    let manifest = parts.manifests.last().cloned();
    let manifest = manifest.ok_or(godwit_runtime::image::ImageError::NoBlobs(id.clone()))?;
    let layers = parts.layers.iter().map(|layer| layer.digest.clone());
    let all = layers.chain([parts.config.clone(), manifest.clone()]);
    let _pin = images.store().pin(all.collect());
    let registry = Arc::new(reach(images, &endpoint, credentials, true).await?);
    let failed = |source: RegistryError| ImagesError::Registry {
        registry: endpoint.registry.clone(),
        source,
    };
    let bytes = images.store().read_document(&manifest)?;
    let config_size = images.store().read_document(&parts.config)?.len() as u64;
    let config = BlobPart {
        digest: parts.config.clone(),
        size: config_size,
        media_type: String::new(),
    };
    let beside: Vec<String> = mountable(&parts.sources, &endpoint.registry, &registry);
    // An image may have a layer more than once.
    let each: BTreeMap<Digest, BlobPart> = parts
        .layers
        .iter()
        .map(|layer| (layer.digest.clone(), layer.clone()))
        .collect();
    let uploads = each.into_values().map(|layer| {
        let (registry, beside) = (&registry, &beside);
        async move { upload(images, registry, &layer, beside, teller).await }
    });
    stream::iter(uploads)
        .buffer_unordered(images.config.max_concurrent_uploads)
        .try_collect::<()>()
        .await?;
    upload(images, &registry, &config, &beside, &Teller::silent()).await?;
    let media_type = media_type(&bytes);
    let size = bytes.len() as u64;
    let tag = to.tag().unwrap_or("latest");
    registry
        .put_manifest(tag, bytes, &media_type)
        .await
        .map_err(failed)?;
    let source = format!("{}@{manifest}", to.repository());
    let store = images.store();
    blocking(move || store.note_source(&id, source)).await?;
    Ok(ImageNews::Pushed {
        digest: manifest,
        size,
        to: to.clone(),
    })
}

/// Repositories of this registry that had the image.
fn mountable(sources: &[String], registry: &str, target: &Registry) -> Vec<String> {
    let here = sources.iter().filter_map(|source| {
        let (repository, _) = source.split_once('@')?;
        repository.strip_prefix(registry)?.strip_prefix('/')
    });
    let others = here.filter(|repository| *repository != target.repository());
    others.take(3).map(str::to_owned).collect()
}

fn media_type(manifest: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(manifest).ok();
    let said = value.and_then(|value| value["mediaType"].as_str().map(str::to_owned));
    said.unwrap_or_else(|| godwit_runtime::image::manifest::ACCEPTED[0].to_owned())
}

async fn upload(
    images: &Images,
    registry: &Arc<Registry>,
    part: &BlobPart,
    beside: &[String],
    teller: &Teller,
) -> Result<(), ImagesError> {
    let failed = |source: RegistryError| ImagesError::Registry {
        registry: registry.name.clone(),
        source,
    };
    teller.layer(part, LayerStep::Waiting, 0, None).await;
    let _turn = images.upload_turn().await;
    if registry.has(&part.digest).await.map_err(failed)? {
        teller.layer(part, LayerStep::Exists, part.size, None).await;
        return Ok(());
    }
    for repository in beside {
        // A registry that does not know it there begins an upload instead, which it forgets.
        if registry.mount(&part.digest, repository).await.is_ok() {
            teller
                .layer(part, LayerStep::Mounted, part.size, None)
                .await;
            return Ok(());
        }
    }
    let (store, digest) = (images.store(), part.digest.clone());
    let (mut file, size) = blocking(move || {
        store
            .open_blob(&digest)?
            .ok_or(godwit_runtime::image::ImageError::BlobMissing { digest })
    })
    .await?;
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(AHEAD);
    let (teller_, part_) = (teller.clone(), part.clone());
    tokio::task::spawn_blocking(move || {
        let mut done = 0;
        loop {
            let mut data = Vec::with_capacity(CHUNK);
            let read = (&mut file).take(CHUNK as u64).read_to_end(&mut data);
            let message = match read {
                Ok(0) => return,
                Ok(n) => {
                    done += n as u64;
                    Ok(data.into())
                }
                Err(error) => Err(error),
            };
            teller_.progress(&part_, LayerStep::Uploading, done, None);
            if sender.blocking_send(message).is_err() {
                return;
            }
        }
    });
    registry
        .upload(&part.digest, size, ReceiverStream::new(receiver))
        .await
        .map_err(failed)?;
    teller
        .layer(part, LayerStep::Uploaded, part.size, None)
        .await;
    Ok(())
}
