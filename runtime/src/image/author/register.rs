//! New layers and images in the store.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use godwit_types::{Digest, ImageName, ImageSummary};
use sha2::{Digest as _, Sha256};

use super::{
    document::Document,
    error::AuthorError,
    note,
    pack::{Clamp, pack},
};
use crate::{
    image::{
        ImageError, compression,
        config::{Config, MAX_LAYERS, digest},
        layer, load,
        names::{Names, failed, write_atomic},
        store::{Image, LayerNote, Store},
    },
    rootfs::{free, remove_tree},
};

/// A layer that was made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authored {
    pub diff_id: Digest,
    /// Bytes of its files.
    pub size: u64,
}

/// Writes and counts, and says by its hash what was written.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Store {
    /// Finds an image by a name as people and Dockerfiles write it, in its long form too.
    /// Also by id, `sha256:…`.
    pub fn find_text(&self, text: &str) -> Result<Option<Image>, AuthorError> {
        if let Ok(id) = text.parse::<Digest>() {
            return Ok(self.get(&id)?);
        }
        Ok(self.find(&load::name(text)?)?)
    }

    /// An image's configuration, to be edited.
    pub fn editable(&self, id: &Digest) -> Result<Document, AuthorError> {
        Ok(Document::parse(&self.document(id)?)?)
    }

    /// The unpacked layers of these digests, bottom first, if all are there.
    pub fn unpacked(&self, layers: &[Digest]) -> Option<Vec<PathBuf>> {
        let paths = chain_ids(layers).into_iter();
        let paths: Vec<_> = paths.map(|chain| self.layer(&chain).join("fs")).collect();
        paths.iter().all(|path| path.is_dir()).then_some(paths)
    }

    /// Makes the tree at `upper`, an overlay's writable layer, a layer above `below` (bottom
    /// first). It counts for nothing, and no image has it, until one is
    /// [registered](Self::register).
    pub fn author(
        &self,
        below: &[Digest],
        upper: &Path,
        clamp: Clamp,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Authored, AuthorError> {
        let paths = self.below(below)?;
        self.in_temporary(|tmp| {
            let tar = tmp.join("layer.tar");
            let file = File::create_new(&tar).map_err(failed("make", &tar))?;
            let mut out = Hashed {
                inner: BufWriter::with_capacity(256 << 10, file),
                hash: Sha256::new(),
            };
            pack(
                upper,
                paths.last().map(PathBuf::as_path),
                clamp,
                &mut out,
                go_on,
            )?;
            let diff_id = Digest::from_sha256(out.hash.finalize().into());
            self.place_layer(tmp, &tar, diff_id, below, &paths)
        })
    }

    /// Makes a tar of a whole root file system, compressed or not, a layer with nothing below.
    pub fn author_root(&self, archive: impl Read) -> Result<Authored, AuthorError> {
        self.in_temporary(|tmp| {
            let tar = tmp.join("layer.tar");
            let file = File::create_new(&tar).map_err(failed("make", &tar))?;
            let mut out = Hashed {
                inner: file,
                hash: Sha256::new(),
            };
            let mut plain = compression::plain(archive).map_err(AuthorError::Input)?;
            let mut buffer = vec![0; 256 << 10];
            loop {
                let n = match plain.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(AuthorError::Input(error)),
                };
                let room = free(tmp).map_err(failed("ask for the free space of", tmp))?;
                if room < n as u64 {
                    let (need, free) = (n as u64, room);
                    let (what, path) = ("the root file system".to_owned(), tmp.to_owned());
                    let full = ImageError::NoSpace {
                        what,
                        path,
                        need,
                        free,
                    };
                    return Err(full.into());
                }
                out.write_all(&buffer[..n]).map_err(failed("write", &tar))?;
            }
            let diff_id = Digest::from_sha256(out.hash.finalize().into());
            self.place_layer(tmp, &tar, diff_id, &[], &[])
        })
    }

    /// Makes an image of a configuration whose layers are all in the store. Its names move to it.
    pub fn register(
        &self,
        document: &Document,
        names: &[ImageName],
    ) -> Result<ImageSummary, AuthorError> {
        let json = document.bytes();
        let id = digest(&json);
        let config = Config::parse(id.as_str(), &json)?;
        let _lock = self.lock()?;
        for (layer, chain) in config.diff_ids.iter().zip(config.chain_ids()) {
            if !self.layer(&chain).join("fs").is_dir() {
                let (image, layer) = (id.clone(), layer.clone());
                return Err(ImageError::LayerMissing {
                    image,
                    layer,
                    chain,
                }
                .into());
            }
        }
        let path = self.blob(&id);
        if !path.exists() {
            write_atomic(&path, &json)?;
        }
        note::write(self, &id, json.len() as u64, &config.diff_ids)?;
        let mut all = Names::read(&self.names())?;
        all.images.insert(id.clone());
        for name in names {
            all.names.insert(name.clone(), id.clone());
        }
        let summary = self.summary(&id, &all)?;
        all.write(&self.names())?;
        Ok(summary)
    }

    /// Forgets images that have no name. What else they have stays until it is collected.
    pub fn forget(&self, ids: &[Digest]) -> Result<(), AuthorError> {
        let _lock = self.lock()?;
        let mut all = Names::read(&self.names())?;
        let before = all.images.len();
        let named: BTreeSet<_> = all.names.values().cloned().collect();
        all.images
            .retain(|id| named.contains(id) || !ids.contains(id));
        if all.images.len() != before {
            all.write(&self.names())?;
        }
        for id in ids.iter().filter(|id| !all.images.contains(id)) {
            let _ = fs::remove_file(self.blob(id));
        }
        Ok(())
    }

    fn below(&self, below: &[Digest]) -> Result<Vec<PathBuf>, AuthorError> {
        if below.len() >= MAX_LAYERS {
            return Err(AuthorError::Layers { limit: MAX_LAYERS });
        }
        self.unpacked(below).ok_or_else(|| {
            let missing = below.iter().map(Digest::short).collect::<Vec<_>>();
            AuthorError::NoImage(format!("of layers {}", missing.join(", ")))
        })
    }

    fn in_temporary<T>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, AuthorError>,
    ) -> Result<T, AuthorError> {
        let (tmp, _lock) = self.temporary()?;
        let result = work(&tmp);
        let removed = remove_tree(&tmp).map_err(ImageError::CleanUp);
        let value = result.inspect_err(|_| {
            if let Err(error) = &removed {
                let error = error as &dyn std::error::Error;
                tracing::warn!(path = %tmp.display(), error, "a failed layer was not removed");
            }
        })?;
        removed?;
        Ok(value)
    }

    /// Unpacks a tar that lies in `tmp` and gives both their names in the store. The tar is kept as
    /// a blob: no other one has its digest, and whoever is given the image needs it.
    fn place_layer(
        &self,
        tmp: &Path,
        tar: &Path,
        diff_id: Digest,
        below: &[Digest],
        paths: &[PathBuf],
    ) -> Result<Authored, AuthorError> {
        let mut all = below.to_vec();
        all.push(diff_id.clone());
        let chain = chain_ids(&all).pop().unwrap_or_else(|| diff_id.clone());
        let target = self.layer(&chain);
        let made = tmp.join(chain.hex());
        let size = match target.join("fs").is_dir() {
            true => self.layer_note(&chain)?.size,
            false => unpack(&made, tar, &diff_id, paths)?,
        };
        // Before they get their names, since a name is believed after a crash.
        let root = File::open(self.root()).map_err(failed("open", self.root()))?;
        rustix::fs::syncfs(&root)
            .map_err(io::Error::from)
            .map_err(failed("sync the file system of", self.root()))?;
        let _lock = self.lock()?;
        let blob = self.blob(&diff_id);
        if !blob.exists() {
            fs::rename(tar, &blob).map_err(failed("rename", tar))?;
        }
        // Somebody else may have made the same.
        if !target.join("fs").is_dir() {
            fs::rename(&made, &target).map_err(failed("rename", &made))?;
        }
        for path in [&blob, &target] {
            let dir = path.parent().unwrap_or(self.root());
            File::open(dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failed("sync", dir))?;
        }
        Ok(Authored { diff_id, size })
    }

    /// The images that are in the store, with and without names.
    pub fn ids(&self) -> Result<BTreeSet<Digest>, AuthorError> {
        Ok(Names::read(&self.names())?.images)
    }
}

/// Makes `made` a layer as the store has them. Answers the bytes of its files.
fn unpack(
    made: &Path,
    tar: &Path,
    diff_id: &Digest,
    below: &[PathBuf],
) -> Result<u64, AuthorError> {
    let fs = made.join("fs");
    for dir in [made, &fs] {
        DirBuilder::new()
            .mode(0o755)
            .create(dir)
            .map_err(failed("make directory", dir))?;
    }
    let unpacked = layer::unpack(tar, &fs, diff_id, below);
    let size = unpacked.map_err(|source| AuthorError::Layer {
        layer: diff_id.clone(),
        source,
    })?;
    let note = LayerNote {
        diff_id: diff_id.clone(),
        size,
    };
    let path = made.join("layer.json");
    let json = serde_json::to_vec(&note).map_err(|source| ImageError::Document {
        path: path.clone(),
        source,
    })?;
    std::fs::write(&path, json).map_err(failed("write", &path))?;
    Ok(size)
}

fn chain_ids(layers: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        chain.push(match chain.last() {
            None => layer.clone(),
            Some(below) => digest(format!("{below} {layer}").as_bytes()),
        });
    }
    chain
}
