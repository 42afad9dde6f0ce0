//! The store's directories, its lock, and reading from it.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use godwit_types::{ByteSize, Digest, ImageConfig, ImageName, ImageSummary};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{
    archive::MAX_DOCUMENT,
    config::{Config, digest},
    error::ImageError,
    load,
    names::{Names, failed},
};
use crate::rootfs::remove_tree;

/// Images on disk: cheap to clone. One process removes from it; any number may be open.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    shared: Arc<Shared>,
}

/// What the clones of one store share.
#[derive(Debug, Default)]
struct Shared {
    /// Read while layers and images are taken up; written while what nothing uses is removed.
    uses: RwLock<()>,
    /// Blobs and images that somebody is about to use, and how many.
    pins: Mutex<BTreeMap<Digest, usize>>,
}

/// While it lives these are not removed.
#[derive(Debug)]
pub struct Pin {
    shared: Arc<Shared>,
    digests: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self
            .shared
            .pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

/// One image, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    pub config: ImageConfig,
    /// Unpacked, bottom first. Read-only: containers share them.
    pub layers: Vec<PathBuf>,
}

/// `layer.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerNote {
    /// Digest of the layer's tar.
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
}

impl Store {
    /// Opens the store at `root`, which is made if it is missing, and clears away loads that
    /// were cut off. Needs root's rights: layers have owners, devices and `trusted` attributes.
    pub fn open(root: &Path) -> Result<Store, ImageError> {
        let store = Store {
            root: root.to_owned(),
            shared: Arc::default(),
        };
        // Layers have setuid files: nobody but us may come near.
        let make = |path: &Path| {
            let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
            made.map_err(failed("make directory", path))
        };
        make(root)?;
        make(&store.blobs())?;
        make(&store.layers())?;
        make(&store.tmp())?;
        make(&store.ingests())?;
        make(&store.notes())?;
        store.check_xattrs()?;
        store.clear_leftovers()?;
        Ok(store)
    }

    /// Loads the images of an archive, as `docker save` writes it or as an OCI image layout, the
    /// whole perhaps compressed with gzip or zstd. Either all of its images are in the store
    /// afterwards or none that was not there before.
    ///
    /// A name that another image had moves to the new one.
    pub fn load(&self, archive: impl Read) -> Result<Vec<ImageSummary>, ImageError> {
        load::load(self, archive)
    }

    /// All images, by id. One that is damaged is left out, and logged.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let names = Names::read(&self.names())?;
        let summaries = names.images.iter().map(|id| (id, self.summary(id, &names)));
        Ok(summaries
            .filter_map(|(id, summary)| {
                summary
                    .inspect_err(|error| {
                        let error = error as &dyn std::error::Error;
                        tracing::warn!(image = %id, error, "image is damaged");
                    })
                    .ok()
            })
            .collect())
    }

    pub fn find(&self, name: &ImageName) -> Result<Option<Image>, ImageError> {
        match Names::read(&self.names())?.names.get(name) {
            Some(id) => self.get(id),
            None => Ok(None),
        }
    }

    pub fn get(&self, id: &Digest) -> Result<Option<Image>, ImageError> {
        if !Names::read(&self.names())?.images.contains(id) {
            return Ok(None);
        }
        let config = self.config(id)?;
        let mut layers = Vec::new();
        for (layer, chain) in config.diff_ids.iter().zip(config.chain_ids()) {
            let fs = self.layer(&chain).join("fs");
            if !fs.is_dir() {
                let (image, layer) = (id.clone(), layer.clone());
                return Err(ImageError::LayerMissing {
                    image,
                    layer,
                    chain,
                });
            }
            layers.push(fs);
        }
        Ok(Some(Image {
            id: id.clone(),
            config: config.run,
            layers,
        }))
    }

    pub(super) fn summary(&self, id: &Digest, names: &Names) -> Result<ImageSummary, ImageError> {
        let config = self.config(id)?;
        let mut size = 0;
        for chain in config.chain_ids() {
            size += self.layer_note(&chain)?.size;
        }
        Ok(ImageSummary {
            id: id.clone(),
            names: names.of(id),
            size: ByteSize(size),
            created: config.created,
            volumes: config.run.volumes,
            exposed: config.run.exposed,
        })
    }

    pub(super) fn config(&self, id: &Digest) -> Result<Config, ImageError> {
        Config::parse(id.as_str(), &self.document(id)?)
    }

    /// A manifest, an index or a configuration, which is what it is called by.
    pub(super) fn document(&self, id: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(id);
        let file = File::open(&path).map_err(failed("open", &path))?;
        let mut json = Vec::new();
        file.take(MAX_DOCUMENT)
            .read_to_end(&mut json)
            .map_err(failed("read", &path))?;
        let found = digest(&json);
        if found != *id {
            return Err(ImageError::Damaged {
                digest: id.clone(),
                found,
            });
        }
        Ok(json)
    }

    pub(super) fn layer_note(&self, chain: &Digest) -> Result<LayerNote, ImageError> {
        let path = self.layer(chain).join("layer.json");
        let json = fs::read(&path).map_err(failed("read", &path))?;
        serde_json::from_slice(&json).map_err(|source| ImageError::Document { path, source })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names.json")
    }

    /// Keeps these from being removed.
    pub fn pin(&self, digests: Vec<Digest>) -> Pin {
        let mut pins = self
            .shared
            .pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for digest in &digests {
            *pins.entry(digest.clone()).or_default() += 1;
        }
        drop(pins);
        let shared = self.shared.clone();
        Pin { shared, digests }
    }

    pub(super) fn is_pinned(&self, digest: &Digest) -> bool {
        let pins = self
            .shared
            .pins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pins.contains_key(digest)
    }

    /// While it is held nothing is removed.
    pub fn using(&self) -> RwLockReadGuard<'_, ()> {
        self.shared
            .uses
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by who removes.
    pub(super) fn removing(&self) -> RwLockWriteGuard<'_, ()> {
        self.shared
            .uses
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(super) fn notes(&self) -> PathBuf {
        self.root.join("notes")
    }

    pub(super) fn note(&self, id: &Digest) -> PathBuf {
        self.notes().join(format!("{}.json", id.hex()))
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, chain: &Digest) -> PathBuf {
        self.layers().join(chain.hex())
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Held until dropped. Threads of one process exclude each other too, as each opens the file.
    pub(super) fn lock(&self) -> Result<File, ImageError> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(failed("lock", &path))?;
        Ok(file)
    }

    /// A new directory under `tmp`, locked so that nobody takes it for a leftover.
    pub(super) fn temporary(&self) -> Result<(PathBuf, File), ImageError> {
        let _lock = self.lock()?;
        let mut random = [0; 8];
        let tmp = self.tmp();
        getrandom::fill(&mut random)
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(failed("choose a name in", &tmp))?;
        let path = tmp.join(hex::encode(random));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(failed("make directory", &path))?;
        let dir = File::open(&path).map_err(failed("open", &path))?;
        flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(failed("lock", &path))?;
        Ok((path, dir))
    }

    fn clear_leftovers(&self) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let tmp = self.tmp();
        for entry in fs::read_dir(&tmp).map_err(failed("list", &tmp))? {
            let path = entry.map_err(failed("list", &tmp))?.path();
            let dir = match File::open(&path) {
                Ok(dir) => dir,
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(failed("open", &path)(source)),
            };
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removing an interrupted image load");
                    remove_tree(&path).map_err(ImageError::CleanUp)?;
                }
                // A load under way, here or in another process.
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(failed("lock", &path)(source)),
            }
        }
        Ok(())
    }

    fn check_xattrs(&self) -> Result<(), ImageError> {
        let refuse = |source| ImageError::NoXattrs {
            path: self.root.clone(),
            source,
        };
        let dir = File::open(self.tmp()).map_err(failed("open", &self.tmp()))?;
        let key = "trusted.overlay.godwit";
        let check = || {
            rustix::fs::fsetxattr(&dir, key, b"y", rustix::fs::XattrFlags::empty())?;
            let mut value = [0; 4];
            let len = rustix::fs::fgetxattr(&dir, key, &mut value)?;
            rustix::fs::fremovexattr(&dir, key)?;
            Ok::<_, rustix::io::Errno>(value[..len] == *b"y")
        };
        match check() {
            Ok(true) => Ok(()),
            Ok(false) => Err(refuse(io::ErrorKind::InvalidData.into())),
            Err(errno) => Err(refuse(errno.into())),
        }
    }
}

/// Whether it was free.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

fn flock(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match rustix::fs::flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}
