//! Removing images, and what nothing uses any more.
//!
//! ```text
//! wait until nothing is being taken up ─▶ lock ─▶ who uses what?
//!   names.json without the image          from here on it is gone
//!   layers of no image ─▶ tmp             a layer is there whole or not at all
//!   blobs and notes of no image           unlinked
//! unlock ─▶ delete what is in tmp
//! ```
//!
//! Cut off anywhere, what is left is unused, and the next prune finds it. An image that a container
//! of this host uses is never removed, whatever its names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use godwit_types::{ByteSize, Digest, ImageName, ImageUsage, StoreUsage};

use super::{
    error::ImageError,
    load,
    names::{Names, failed},
    note::Note,
    read,
    store::{Store, try_lock},
};

/// Containers that use an image, by the image.
pub type Uses = BTreeMap<Digest, Vec<String>>;
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Freed {
    pub untagged: Vec<ImageName>,
    pub deleted: Vec<Digest>,
    pub bytes: u64,
}

impl Store {
    /// Takes one name from an image, or removes it with its last name; by its id with all names,
    /// which by several takes `force`. `uses` is asked while nothing can change.
    pub fn remove(
        &self,
        query: &str,
        force: bool,
        uses: impl FnOnce() -> Result<Uses, Cause>,
    ) -> Result<Freed, ImageError> {
        load::in_temporary(self, |tmp| {
            let _alone = self.removing();
            let _lock = self.lock()?;
            let mut names = Names::read(&self.names())?;
            let (id, by_name) = read::find(&names, query)?;
            let all = names.of(&id);
            let mut freed = Freed::default();
            match by_name {
                Some(name) if all.len() > 1 => {
                    names.names.remove(&name);
                    names.write(&self.names())?;
                    freed.untagged.push(name);
                    return Ok(freed);
                }
                None if all.len() > 1 && !force => {
                    return Err(ImageError::ManyNames {
                        image: id.short().to_owned(),
                        count: all.len(),
                    });
                }
                _ => {}
            }
            let uses = uses().map_err(ImageError::Uses)?;
            if let Some(containers) = uses.get(&id) {
                return Err(ImageError::InUse {
                    image: query.to_owned(),
                    containers: format!("container {}", containers.join(", ")),
                });
            }
            if self.is_pinned(&id) {
                return Err(ImageError::InUse {
                    image: query.to_owned(),
                    containers: "a pull or a container that is being made".to_owned(),
                });
            }
            names.names.retain(|_, of| *of != id);
            names.images.remove(&id);
            names.write(&self.names())?;
            freed.untagged = all;
            freed.deleted.push(id);
            self.sweep(&names, &uses, tmp, &mut freed)?;
            Ok(freed)
        })
    }

    /// Removes images without a name, or with `all` every image that no container of this host
    /// uses, and whatever belongs to no image.
    pub fn prune(
        &self,
        all: bool,
        uses: impl FnOnce() -> Result<Uses, Cause>,
    ) -> Result<Freed, ImageError> {
        load::in_temporary(self, |tmp| {
            let _alone = self.removing();
            let _lock = self.lock()?;
            let mut names = Names::read(&self.names())?;
            let uses = uses().map_err(ImageError::Uses)?;
            let mut freed = Freed::default();
            for id in names.images.clone() {
                let of = names.of(&id);
                if uses.contains_key(&id) || self.is_pinned(&id) || (!all && !of.is_empty()) {
                    continue;
                }
                names.names.retain(|_, of| *of != id);
                names.images.remove(&id);
                freed.untagged.extend(of);
                freed.deleted.push(id);
            }
            if !freed.deleted.is_empty() {
                names.write(&self.names())?;
            }
            self.sweep(&names, &uses, tmp, &mut freed)?;
            freed.bytes += self.drop_partial()?;
            Ok(freed)
        })
    }

    fn sweep(
        &self,
        names: &Names,
        uses: &Uses,
        tmp: &Path,
        freed: &mut Freed,
    ) -> Result<(), ImageError> {
        let live = self.live(names.images.iter().chain(uses.keys()))?;
        for (chain, path) in entries(&self.layers())? {
            if chain
                .as_ref()
                .is_some_and(|chain| live.layers.contains(chain))
            {
                continue;
            }
            let size = chain.and_then(|chain| self.layer_note(&chain).ok());
            let aside = tmp.join(path.file_name().unwrap_or_default());
            fs::rename(&path, &aside).map_err(failed("rename", &path))?;
            freed.bytes += size.map_or(0, |note| note.size);
        }
        for (digest, path) in entries(&self.blobs())? {
            let kept = |digest: &Digest| live.blobs.contains(digest) || self.is_pinned(digest);
            if !digest.as_ref().is_some_and(kept) {
                freed.bytes += size(&path);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        for entry in list(&self.notes())? {
            let stem = entry.file_stem().and_then(|stem| stem.to_str());
            let id = stem.and_then(|hex| format!("sha256:{hex}").parse().ok());
            if !id.is_some_and(|id: Digest| live.images.contains(&id)) {
                fs::remove_file(&entry).map_err(failed("remove", &entry))?;
            }
        }
        Ok(())
    }

    /// Blobs that nobody is at.
    fn drop_partial(&self) -> Result<u64, ImageError> {
        let mut freed = 0;
        for path in list(&self.ingests())? {
            let file = File::open(&path).map_err(failed("open", &path))?;
            if try_lock(&file).map_err(failed("lock", &path))? {
                freed += size(&path);
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(freed)
    }

    /// What these images are made of. One that is damaged is an error: it could not be told what
    /// it uses.
    fn live<'a>(&self, ids: impl Iterator<Item = &'a Digest>) -> Result<Live, ImageError> {
        let mut live = Live::default();
        for id in ids {
            if !live.images.insert(id.clone()) {
                continue;
            }
            live.layers.extend(self.config(id)?.chain_ids());
            live.blobs.insert(id.clone());
            if let Some(note) = Note::read(&self.note(id))? {
                live.blobs.extend(note.blobs().cloned());
            }
        }
        Ok(live)
    }

    /// What takes how much room, and what of it `prune` of all would free.
    pub fn usage(&self, uses: &Uses) -> Result<StoreUsage, ImageError> {
        let _using = self.using();
        let names = Names::read(&self.names())?;
        let mut layers: BTreeMap<Digest, (u64, u32)> = BTreeMap::new();
        let mut images = Vec::new();
        for id in &names.images {
            let Ok(summary) = self.summary(id, &names) else {
                continue;
            };
            let chains = self.config(id)?.chain_ids();
            for chain in &chains {
                let size = self.layer_note(chain)?.size;
                layers.entry(chain.clone()).or_insert((size, 0)).1 += 1;
            }
            images.push((id, summary, chains));
        }
        let mut usage = StoreUsage::default();
        for (id, summary, chains) in images {
            let shared = chains.iter().filter_map(|chain| layers.get(chain));
            let shared = shared.filter(|(_, users)| *users > 1);
            let shared: u64 = shared.map(|(size, _)| size).sum();
            let containers = uses.get(id).map_or(0, Vec::len);
            usage.images.push(ImageUsage {
                unique: ByteSize(summary.size.0.saturating_sub(shared)),
                shared: ByteSize(shared),
                summary,
                containers: u32::try_from(containers).unwrap_or(u32::MAX),
            });
        }
        let live = self.live(uses.keys())?;
        for (chain, _) in entries(&self.layers())? {
            let size = chain.as_ref().and_then(|chain| self.layer_note(chain).ok());
            let size = size.map_or(0, |note| note.size);
            usage.layers.0 += size;
            if !chain.is_some_and(|chain| live.layers.contains(&chain)) {
                usage.reclaimable.0 += size;
            }
        }
        for (digest, path) in entries(&self.blobs())? {
            let size = size(&path);
            usage.blobs.0 += size;
            if !digest.is_some_and(|digest| live.blobs.contains(&digest)) {
                usage.reclaimable.0 += size;
            }
        }
        for path in list(&self.ingests())? {
            usage.partial.0 += size(&path);
        }
        usage.reclaimable.0 += usage.partial.0;
        Ok(usage)
    }

    /// Whether everything that the store says it has is there and is what it is called by: blobs by
    /// their digests, layers by their directories. Reads all of it.
    pub fn verify(&self) -> Result<(), ImageError> {
        let _using = self.using();
        let names = Names::read(&self.names())?;
        for id in &names.images {
            self.get(id)?;
            let parts = self.parts(id);
            let parts = match parts {
                Err(ImageError::NoBlobs(_)) => continue,
                parts => parts?,
            };
            for digest in &parts.manifests {
                self.document(digest)?;
            }
            for layer in &parts.layers {
                let path = self.blob(&layer.digest);
                let found = read::digest_of(&path)?;
                if found != layer.digest {
                    return Err(ImageError::Damaged {
                        digest: layer.digest.clone(),
                        found,
                    });
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Live {
    images: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
    blobs: BTreeSet<Digest>,
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("list", dir))? {
        found.push(entry.map_err(failed("list", dir))?.path());
    }
    Ok(found)
}

/// Entries with the digest that they are named by; None: a name of another kind, which a crash left.
fn entries(dir: &Path) -> Result<Vec<(Option<Digest>, PathBuf)>, ImageError> {
    let named = |path: PathBuf| {
        let hex = path.file_name().and_then(|name| name.to_str());
        let digest = hex.and_then(|hex| format!("sha256:{hex}").parse().ok());
        (digest, path)
    };
    Ok(list(dir)?.into_iter().map(named).collect())
}
