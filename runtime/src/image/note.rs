//! What is kept beside an image: the blobs that it is made of, as they are sent.
//!
//! ```text
//! <root>/notes/<id>.json      {"version": 1, "manifest": "sha256:…", "layers": […], …}
//! ```
//!
//! A note is no part of the image: without one it runs, but can't be pushed, saved or given to
//! another host.

use std::{collections::BTreeSet, fs, io, path::Path};

use godwit_types::{BlobPart, Digest};
use serde::{Deserialize, Serialize};

use super::{
    error::ImageError,
    names::{failed, write_atomic},
};

const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    version: u32,
    /// The image's own manifest.
    pub manifest: Digest,
    /// What led to it in a registry or an archive.
    #[serde(default)]
    pub indexes: Vec<Digest>,
    /// Bottom first.
    pub layers: Vec<BlobPart>,
    /// `repository@digest`, of registries.
    #[serde(default)]
    pub sources: BTreeSet<String>,
}

impl Note {
    pub(super) fn new(manifest: Digest, indexes: Vec<Digest>, layers: Vec<BlobPart>) -> Self {
        Self {
            version: VERSION,
            manifest,
            indexes,
            layers,
            sources: BTreeSet::new(),
        }
    }

    /// None: there is none, or it is of another version.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, ImageError> {
        let json = match fs::read(path) {
            Ok(json) => json,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", path)(source)),
        };
        let note: Self = serde_json::from_slice(&json).map_err(|source| ImageError::Document {
            path: path.to_owned(),
            source,
        })?;
        Ok((note.version == VERSION).then_some(note))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), ImageError> {
        let json = serde_json::to_vec(self).map_err(|source| ImageError::Document {
            path: path.to_owned(),
            source,
        })?;
        write_atomic(path, &json)
    }

    /// Every blob that it names.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let layers = self.layers.iter().map(|layer| &layer.digest);
        self.indexes.iter().chain([&self.manifest]).chain(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_one_of_another_version_is_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.json");
        assert_eq!(Note::read(&path).unwrap(), None);
        let digest = Digest::from_sha256([3; 32]);
        let layer = BlobPart {
            digest: digest.clone(),
            size: 7,
            media_type: "x".into(),
        };
        let mut note = Note::new(digest.clone(), vec![digest], vec![layer]);
        note.sources.insert("a/b@c".into());
        note.write(&path).unwrap();
        assert_eq!(Note::read(&path).unwrap(), Some(note.clone()));
        note.version = 2;
        note.write(&path).unwrap();
        assert_eq!(Note::read(&path).unwrap(), None);
        fs::write(&path, "{").unwrap();
        assert!(Note::read(&path).is_err());
    }
}
