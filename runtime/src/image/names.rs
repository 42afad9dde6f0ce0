//! `names.json`: which images the store has, and what they are called. The one document that
//! changes; it is replaced as a whole.
//!
//! ```json
//! {"version": 1, "names": {"redis:7": "sha256:…"}, "images": ["sha256:…"]}
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use godwit_types::{Digest, ImageName};
use serde::{Deserialize, Serialize};

use super::error::ImageError;

const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Names {
    version: u32,
    pub names: BTreeMap<ImageName, Digest>,
    /// With and without a name.
    pub images: BTreeSet<Digest>,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            version: VERSION,
            names: BTreeMap::new(),
            images: BTreeSet::new(),
        }
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Names {
    /// A new store has none.
    pub(super) fn read(path: &Path) -> Result<Self, ImageError> {
        let json = match fs::read(path) {
            Ok(json) => json,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(failed("read", path)(source)),
        };
        let not_ours = |source| ImageError::Document {
            path: path.to_owned(),
            source,
        };
        let Version { version } = serde_json::from_slice(&json).map_err(not_ours)?;
        if version != VERSION {
            let (found, known) = (version, VERSION);
            return Err(ImageError::Version {
                path: path.to_owned(),
                found,
                known,
            });
        }
        serde_json::from_slice(&json).map_err(not_ours)
    }

    /// The document is this one or the one before, whenever the host dies.
    pub(super) fn write(&self, path: &Path) -> Result<(), ImageError> {
        let json = serde_json::to_vec_pretty(self).map_err(|source| ImageError::Document {
            path: path.to_owned(),
            source,
        })?;
        write_atomic(path, &json)
    }

    pub(super) fn of(&self, id: &Digest) -> Vec<ImageName> {
        self.names
            .iter()
            .filter(|(_, of)| *of == id)
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// Written beside, synced, renamed, and the rename synced.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(failed("make", &beside))?;
    file.write_all(bytes).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("sync", &beside))?;
    fs::rename(&beside, path).map_err(failed("rename", &beside))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

pub(super) fn failed<'a>(
    step: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> ImageError + 'a {
    move |source| ImageError::Io {
        step,
        path: path.to_owned(),
        source,
    }
}
