//! From an archive to images in the store. The steps are in `mod.rs`.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use godwit_types::{Digest, ImageName, ImageSummary};

use super::{
    archive::{Blob, Spool},
    config::{Config, Platform, digest},
    docker,
    error::ImageError,
    layer,
    names::{Names, failed, write_atomic},
    note::Note,
    oci,
    store::{LayerNote, Store},
};
use crate::rootfs::remove_tree;

/// An image in a spooled archive.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub names: Vec<ImageName>,
    pub config: &'a Blob,
    /// Indexes and the manifest; none in a docker archive.
    pub manifests: Vec<&'a Blob>,
    /// Bottom first, perhaps compressed.
    pub layers: Vec<&'a Blob>,
    /// `repository@digest` of the registry that it came from.
    pub sources: Vec<String>,
    /// It may be for another platform than this host's.
    pub any_platform: bool,
}

/// A name as archives write it. What Docker means without saying is left out again:
/// `docker.io/library/redis:7` is `redis:7`.
pub(super) fn name(text: &str) -> Result<ImageName, ImageError> {
    let short = text.split_once('@').map_or(text, |(name, _)| name);
    let short = short.strip_prefix("docker.io/").unwrap_or(short);
    let short = short.strip_prefix("library/").unwrap_or(short);
    short.parse().map_err(|source| ImageError::Name {
        name: text.chars().take(200).collect(),
        source,
    })
}

pub(super) fn load(store: &Store, archive: impl Read) -> Result<Vec<ImageSummary>, ImageError> {
    in_temporary(store, |tmp| load_in(store, archive, tmp))
}

/// Works in a directory that is gone afterwards.
pub(super) fn in_temporary<T>(
    store: &Store,
    work: impl FnOnce(&Path) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let (tmp, _lock) = store.temporary()?;
    let loaded = work(&tmp);
    let removed = remove_tree(&tmp).map_err(ImageError::CleanUp);
    if let (Err(_), Err(error)) = (&loaded, &removed) {
        let error = error as &dyn std::error::Error;
        tracing::warn!(path = %tmp.display(), error, "a failed image load was not removed");
    }
    let loaded = loaded?;
    removed?;
    Ok(loaded)
}

fn load_in(store: &Store, archive: impl Read, tmp: &Path) -> Result<Vec<ImageSummary>, ImageError> {
    let members = make(tmp, "members")?;
    let spool = Spool::fill(archive, &members)?;
    // An archive may be both; the image layout says more about its blobs.
    let images = if spool.has("oci-layout") && spool.has(oci::INDEX) {
        oci::images(&spool)?
    } else if spool.has(docker::MANIFEST) {
        docker::images(&spool)?
    } else if spool.has(oci::INDEX) {
        oci::images(&spool)?
    } else {
        return Err(spool.not_an_image());
    };
    // The archive is here: what follows does not wait for who sends it.
    let _using = store.using();
    unpack_and_commit(store, tmp, images)
}

fn make(tmp: &Path, name: &str) -> Result<PathBuf, ImageError> {
    let path = tmp.join(name);
    DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(failed("make directory", &path))?;
    Ok(path)
}

/// Unpacks what the store lacks of these images and makes them its own: all of them or none.
pub(super) fn unpack_and_commit(
    store: &Store,
    tmp: &Path,
    images: Vec<Found<'_>>,
) -> Result<Vec<ImageSummary>, ImageError> {
    let layers = make(tmp, "layers")?;
    let mut unpacked = Unpacked {
        store,
        dir: layers,
        new: BTreeMap::new(),
    };
    let mut ready = Vec::with_capacity(images.len());
    for image in images {
        let config = unpacked.image(&image)?;
        ready.push((image, config));
    }
    // Before anything gets its final name, since a name is believed after a crash.
    let root = File::open(store.root()).map_err(failed("open", store.root()))?;
    rustix::fs::syncfs(&root)
        .map_err(io::Error::from)
        .map_err(failed("sync the file system of", store.root()))?;
    commit(store, &unpacked, &ready)
}

/// The layers that this load brings.
struct Unpacked<'a> {
    store: &'a Store,
    dir: PathBuf,
    /// By chain id.
    new: BTreeMap<Digest, PathBuf>,
}

impl Unpacked<'_> {
    /// Unpacks what the store lacks of an image.
    fn image(&mut self, image: &Found<'_>) -> Result<Config, ImageError> {
        let id = &image.config.digest;
        let config = Config::parse(id.as_str(), &image.config.bytes(id.as_str())?)?;
        if !image.any_platform && !config.platform.fits() {
            let found = format!("`{}`", config.platform);
            return Err(ImageError::Platform {
                wanted: Platform::here().to_string(),
                found,
            });
        }
        if image.layers.len() != config.diff_ids.len() {
            let (layers, diff_ids) = (image.layers.len(), config.diff_ids.len());
            return Err(ImageError::LayerCount {
                image: id.clone(),
                layers,
                diff_ids,
            });
        }
        if config.diff_ids.is_empty() {
            return Err(ImageError::NoLayers { image: id.clone() });
        }
        let mut below: Vec<PathBuf> = Vec::new();
        let layers = image
            .layers
            .iter()
            .zip(&config.diff_ids)
            .zip(config.chain_ids());
        for ((blob, diff_id), chain) in layers {
            below.push(self.layer(blob, diff_id, &chain, &below)?.join("fs"));
        }
        Ok(config)
    }

    /// Where the layer is: in the store, or among the new ones.
    fn layer(
        &mut self,
        blob: &Blob,
        diff_id: &Digest,
        chain: &Digest,
        below: &[PathBuf],
    ) -> Result<PathBuf, ImageError> {
        let present = self.store.layer(chain);
        if present.join("fs").is_dir() {
            return Ok(present);
        }
        if let Some(new) = self.new.get(chain) {
            return Ok(new.clone());
        }
        let path = self.dir.join(chain.hex());
        let fs = path.join("fs");
        for dir in [&path, &fs] {
            DirBuilder::new()
                .mode(0o755)
                .create(dir)
                .map_err(failed("make directory", dir))?;
        }
        let size =
            layer::unpack(&blob.path, &fs, diff_id, below).map_err(|source| ImageError::Layer {
                layer: diff_id.clone(),
                source,
            })?;
        let note = LayerNote {
            diff_id: diff_id.clone(),
            size,
        };
        let note_path = path.join("layer.json");
        let json = serde_json::to_vec(&note).map_err(|source| ImageError::Document {
            path: note_path.clone(),
            source,
        })?;
        fs::write(&note_path, json).map_err(failed("write", &note_path))?;
        self.new.insert(chain.clone(), path.clone());
        Ok(path)
    }
}

fn commit(
    store: &Store,
    unpacked: &Unpacked<'_>,
    images: &[(Found<'_>, Config)],
) -> Result<Vec<ImageSummary>, ImageError> {
    let _lock = store.lock()?;
    let mut made = Made::default();
    let committed = commit_locked(store, unpacked, images, &mut made);
    if committed.is_err() {
        made.undo();
    }
    committed
}

/// What has got its final name and counts for nothing until `names.json` says so.
#[derive(Default)]
struct Made {
    layers: Vec<PathBuf>,
    blobs: Vec<PathBuf>,
}

impl Made {
    /// As far as it goes: what stays is unused, and right.
    fn undo(self) {
        for layer in self.layers {
            if let Err(error) = remove_tree(&layer) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a layer of a failed image load was not removed");
            }
        }
        for blob in self.blobs {
            let _ = fs::remove_file(blob);
        }
    }
}

fn commit_locked(
    store: &Store,
    unpacked: &Unpacked<'_>,
    images: &[(Found<'_>, Config)],
    made: &mut Made,
) -> Result<Vec<ImageSummary>, ImageError> {
    for (chain, path) in &unpacked.new {
        let target = store.layer(chain);
        // Another load was faster.
        if target.join("fs").is_dir() {
            continue;
        }
        fs::rename(path, &target).map_err(failed("rename", path))?;
        made.layers.push(target);
    }
    let layers = store.root().join("layers");
    File::open(&layers)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", &layers))?;

    let mut names = Names::read(&store.names())?;
    for (image, config) in images {
        let id = &image.config.digest;
        // One that was there when we looked may have gone with another load's failure.
        for (layer, chain) in config.diff_ids.iter().zip(config.chain_ids()) {
            if !store.layer(&chain).join("fs").is_dir() {
                let (image, layer) = (id.clone(), layer.clone());
                return Err(ImageError::LayerMissing {
                    image,
                    layer,
                    chain,
                });
            }
        }
        for blob in image.manifests.iter().copied().chain([image.config]) {
            let path = store.blob(&blob.digest);
            if !path.exists() {
                made.blobs.push(path.clone());
                write_atomic(&path, &blob.bytes(blob.digest.as_str())?)?;
            }
        }
        let note = note_of(store, image, made)?;
        for blob in &image.layers {
            let path = store.blob(&blob.digest);
            // It was synced with the layers; an archive may name one twice.
            if !path.exists() {
                made.blobs.push(path.clone());
                fs::rename(&blob.path, &path).map_err(failed("rename", &blob.path))?;
            }
        }
        note.write(&store.note(id))?;
        names.images.insert(id.clone());
        for name in &image.names {
            names.names.insert(name.clone(), id.clone());
        }
    }
    let ids: Vec<_> = images
        .iter()
        .map(|(image, _)| &image.config.digest)
        .collect();
    let summaries = ids
        .iter()
        .map(|id| store.summary(id, &names))
        .collect::<Result<Vec<_>, _>>()?;
    names.write(&store.names())?;
    Ok(summaries)
}

/// What the image is made of, as it is sent. An archive of Docker's has no manifest: one is made.
fn note_of(store: &Store, image: &Found<'_>, made: &mut Made) -> Result<Note, ImageError> {
    let id = &image.config.digest;
    let old = Note::read(&store.note(id)).ok().flatten();
    let mut note = match image.manifests.split_last() {
        Some((manifest, indexes)) => {
            let bytes = manifest.bytes(manifest.digest.as_str())?;
            let layers = oci::layers_of(manifest.digest.as_str(), &bytes)?;
            let indexes = indexes.iter().map(|blob| blob.digest.clone()).collect();
            Note::new(manifest.digest.clone(), indexes, layers)
        }
        None => {
            let (bytes, layers) = oci::manifest_for(image.config, &image.layers)?;
            let path = store.blob(&digest(&bytes));
            if !path.exists() {
                made.blobs.push(path.clone());
                write_atomic(&path, &bytes)?;
            }
            Note::new(digest(&bytes), Vec::new(), layers)
        }
    };
    note.sources.extend(image.sources.iter().cloned());
    note.sources
        .extend(old.into_iter().flat_map(|old| old.sources));
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_implies_is_left_out_of_names() {
        for (text, short) in [
            ("docker.io/library/redis:7", "redis:7"),
            ("docker.io/a/b:1", "a/b:1"),
            ("redis", "redis:latest"),
            ("host:5000/x:1", "host:5000/x:1"),
        ] {
            assert_eq!(name(text).unwrap().as_str(), short);
        }
        assert!(name("UPPER:1").is_err());
    }
}
