//! Results of steps by their keys, on this host's disk. A result is its layer's digest; the layer
//! itself is in the image store, and one that is no longer there is made again.
//!
//! ```text
//! <root>/<key>.json    {"version": 1, "created": "…", "layer": "sha256:…"}
//! ```

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use godwit_types::Digest;
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::container::write_atomic;

const VERSION: u32 = 1;
/// Those that were not used for the longest time go first.
const MAX_RESULTS: usize = 8192;
const MAX_RESULT: u64 = 4096;

#[derive(Debug, thiserror::Error)]
#[error("build cache `{}`", path.display())]
pub struct CacheError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    version: u32,
    /// When it was made first: RFC 3339. A build that finds everything makes the same image.
    pub created: String,
    /// None: no file changed.
    #[serde(default)]
    pub layer: Option<Digest>,
}

impl Cached {
    pub fn new(created: String, layer: Option<Digest>) -> Self {
        Self {
            version: VERSION,
            created,
            layer,
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens it, and forgets what was not used for the longest time if there is too much.
    pub fn open(root: &Path) -> Result<Self, CacheError> {
        let failed = |source| CacheError {
            path: root.to_owned(),
            source,
        };
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(root)
            .map_err(failed)?;
        let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let used = entry.metadata().and_then(|metadata| metadata.modified());
            found.push((used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
        found.sort();
        let over = found.len().saturating_sub(MAX_RESULTS);
        for (_, path) in &found[..over] {
            let _ = fs::remove_file(path);
        }
        Ok(Self {
            root: root.to_owned(),
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(format!("{}.json", key.hex()))
    }

    /// None also for what can't be read: it is made again.
    pub fn find(&self, key: &Key) -> Option<Cached> {
        let path = self.path(key);
        if fs::metadata(&path).ok()?.len() > MAX_RESULT {
            return None;
        }
        let found: Cached = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let now = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = now {
            tracing::debug!(%error, "use of a cached step not noted");
        }
        (found.version == VERSION).then_some(found)
    }

    pub fn keep(&self, key: &Key, result: &Cached) -> Result<(), CacheError> {
        let path = self.path(key);
        write_atomic(&path, result).map_err(|source| CacheError { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_again_and_a_damaged_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let key = Key::begin("x");
        assert_eq!(cache.find(&key), None);
        let result = Cached::new(
            "2026-01-01T00:00:00Z".into(),
            Some(Digest::from_sha256([3; 32])),
        );
        cache.keep(&key, &result).unwrap();
        assert_eq!(Cache::open(dir.path()).unwrap().find(&key), Some(result));
        assert_eq!(cache.find(&key.then(&[b"y"])), None);
        for bad in ["", "{}", r#"{"version":2,"created":"x"}"#] {
            fs::write(cache.path(&key), bad).unwrap();
            assert_eq!(cache.find(&key), None, "{bad}");
        }
    }
}
