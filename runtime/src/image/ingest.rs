//! A blob on its way into the store.
//!
//! ```text
//! <root>/ingest/<hex>    what has come of it so far; a flock while somebody writes
//! ```
//!
//! It gets its name among the blobs once all of it came and has the digest that it is called by.
//! What an interruption left is hashed again and gone on with.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use godwit_types::Digest;
use sha2::{Digest as _, Sha256};

use super::{
    config::digest,
    error::ImageError,
    names::{failed, write_atomic},
    store::{Store, try_lock},
};
use crate::rootfs::free;

/// Left free for everybody else.
const SPARE: u64 = 16 << 20;

/// See the module.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    digest: Digest,
    size: u64,
    path: PathBuf,
    file: File,
    hash: Sha256,
    have: u64,
}

impl Store {
    /// Whether the store has this blob.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob(digest).is_file()
    }

    /// A blob of the store and its size; None: it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, ImageError> {
        let path = self.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("open", &path)(source)),
        };
        let size = file.metadata().map_err(failed("look at", &path))?.len();
        Ok(Some((file, size)))
    }

    /// Keeps a manifest, an index or a configuration.
    pub fn keep_document(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = digest(bytes);
        let path = self.blob(&digest);
        if !path.is_file() {
            write_atomic(&path, bytes)?;
        }
        Ok(digest)
    }

    /// A small blob, whole.
    pub fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        self.document(digest)
    }

    /// Begins to take a blob of `size` bytes, or goes on where it was left. None: another is at it.
    pub fn ingest(&self, digest: &Digest, size: u64) -> Result<Option<Ingest>, ImageError> {
        let dir = self.ingests();
        let path = dir.join(digest.hex());
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        if !try_lock(&file).map_err(failed("lock", &path))? {
            return Ok(None);
        }
        // Who had it finished between the two: then the file is under its other name, and another
        // may be under this one.
        let opened = file.metadata().map_err(failed("look at", &path))?.ino();
        if fs::symlink_metadata(&path).map_or(0, |there| there.ino()) != opened {
            return Ok(None);
        }
        let mut ingest = Ingest {
            store: self.clone(),
            digest: digest.clone(),
            size,
            path,
            file,
            hash: Sha256::new(),
            have: 0,
        };
        ingest.take_up()?;
        let free = free(&dir).map_err(failed("ask for the free space of", &dir))?;
        let need = size - ingest.have;
        if need.saturating_add(SPARE) > free {
            return Err(ImageError::NoSpace {
                what: format!("blob {}", digest.short()),
                path: dir,
                need,
                free: free.saturating_sub(SPARE),
            });
        }
        Ok(Some(ingest))
    }
}

impl Ingest {
    /// Bytes that are there already.
    pub fn have(&self) -> u64 {
        self.have
    }

    fn io<'a>(&'a self, step: &'static str) -> impl FnOnce(io::Error) -> ImageError + 'a {
        failed(step, &self.path)
    }

    fn take_up(&mut self) -> Result<(), ImageError> {
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = self.file.read(&mut buffer).map_err(self.io("read"))?;
            if n == 0 {
                break;
            }
            self.have += n as u64;
            self.hash.update(&buffer[..n]);
        }
        if self.have > self.size {
            self.restart()?;
        }
        Ok(())
    }

    /// Forgets what came so far.
    pub fn restart(&mut self) -> Result<(), ImageError> {
        self.file.set_len(0).map_err(self.io("empty"))?;
        self.hash = Sha256::new();
        self.have = 0;
        Ok(())
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let have = self.have + bytes.len() as u64;
        if have > self.size {
            let found = have;
            self.restart()?;
            return Err(ImageError::Size {
                what: self.digest.to_string(),
                expected: self.size,
                found,
            });
        }
        self.file
            .write_all(bytes)
            .map_err(|source| match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::NoSpace {
                    what: format!("blob {}", self.digest.short()),
                    path: self.path.clone(),
                    need: self.size - self.have,
                    free: 0,
                },
                _ => self.io("write")(source),
            })?;
        self.hash.update(bytes);
        self.have = have;
        Ok(())
    }

    /// All of it came: checks it and gives it its name. What is wrong is not kept.
    pub fn finish(mut self) -> Result<(), ImageError> {
        if self.have != self.size {
            // More may come another time.
            return Err(ImageError::Size {
                what: self.digest.to_string(),
                expected: self.size,
                found: self.have,
            });
        }
        let found = Digest::from_sha256(std::mem::take(&mut self.hash).finalize().into());
        if found != self.digest {
            self.restart()?;
            let _ = fs::remove_file(&self.path);
            return Err(ImageError::Digest {
                what: format!("blob {}", self.digest.short()),
                expected: self.digest.clone(),
                found,
            });
        }
        self.file.sync_all().map_err(self.io("sync"))?;
        let blob = self.store.blob(&self.digest);
        fs::rename(&self.path, &blob).map_err(self.io("rename"))?;
        let dir = blob.parent().unwrap_or(&blob);
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("sync", dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    #[test]
    fn what_was_interrupted_is_gone_on_with() {
        let (_dir, store) = store();
        let bytes = vec![7; 300_000];
        let digest = digest(&bytes);
        let mut ingest = store.ingest(&digest, 300_000).unwrap().unwrap();
        ingest.write(&bytes[..200_000]).unwrap();
        assert!(store.ingest(&digest, 300_000).unwrap().is_none(), "locked");
        drop(ingest);
        assert!(!store.has_blob(&digest));
        let mut ingest = store.ingest(&digest, 300_000).unwrap().unwrap();
        assert_eq!(ingest.have(), 200_000);
        ingest.write(&bytes[200_000..]).unwrap();
        ingest.finish().unwrap();
        assert_eq!(store.open_blob(&digest).unwrap().unwrap().1, 300_000);
    }

    #[test]
    fn what_is_not_as_it_is_called_is_not_kept() {
        let (_dir, store) = store();
        let digest = digest(b"right");
        let mut ingest = store.ingest(&digest, 5).unwrap().unwrap();
        ingest.write(b"wrong").unwrap();
        assert!(matches!(ingest.finish(), Err(ImageError::Digest { .. })));
        let mut ingest = store.ingest(&digest, 5).unwrap().unwrap();
        assert_eq!(ingest.have(), 0);
        assert!(matches!(
            ingest.write(b"too long"),
            Err(ImageError::Size { .. })
        ));
        ingest.write(b"rig").unwrap();
        assert!(matches!(ingest.finish(), Err(ImageError::Size { .. })));
        assert!(!store.has_blob(&digest));
    }

    #[test]
    fn a_blob_that_does_not_fit_is_refused_before_it_comes() {
        let (_dir, store) = store();
        let refused = store.ingest(&digest(b"x"), u64::MAX / 2);
        assert!(matches!(refused, Err(ImageError::NoSpace { .. })));
    }
}
