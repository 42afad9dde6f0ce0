//! Looking an image up, giving it another name, and what it is made of.

use std::{fs::File, io::Read, path::Path};

use godwit_types::{ByteSize, Digest, ImageDetail, ImageName, ImageParts, LayerDetail};
use sha2::{Digest as _, Sha256};

use super::{
    error::ImageError,
    names::{Names, failed},
    note::Note,
    store::Store,
};

/// Whether a text could be meant as an image: a name, an id, or the beginning of one.
pub fn checked_query(text: &str) -> bool {
    text.parse::<ImageName>().is_ok() || text.parse::<Digest>().is_ok()
}

/// The image that a name, an id or the beginning of one means, and the name if it was one.
pub(super) fn find(names: &Names, query: &str) -> Result<(Digest, Option<ImageName>), ImageError> {
    let unknown = || ImageError::Unknown(query.chars().take(200).collect());
    if let Ok(name) = query.parse::<ImageName>()
        && let Some(id) = names.names.get(&name)
    {
        return Ok((id.clone(), Some(name)));
    }
    let hex = query.strip_prefix("sha256:").unwrap_or(query);
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !(2..=64).contains(&hex.len()) || !is_hex {
        return Err(unknown());
    }
    let mut fit = names.images.iter().filter(|id| id.hex().starts_with(hex));
    match (fit.next(), fit.next()) {
        (None, _) => Err(unknown()),
        (Some(id), None) => Ok((id.clone(), None)),
        (Some(_), Some(_)) => Err(ImageError::Ambiguous(hex.to_owned())),
    }
}

pub(super) fn digest_of(path: &Path) -> Result<Digest, ImageError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        let n = file.read(&mut buffer).map_err(failed("read", path))?;
        if n == 0 {
            return Ok(Digest::from_sha256(hash.finalize().into()));
        }
        hash.update(&buffer[..n]);
    }
}

impl Store {
    /// The image that a name, an id or the beginning of one means.
    pub fn resolve(&self, query: &str) -> Result<Digest, ImageError> {
        Ok(find(&Names::read(&self.names())?, query)?.0)
    }

    /// Gives an image one more name. Another image that had it loses it.
    pub fn tag(&self, query: &str, name: &ImageName) -> Result<Digest, ImageError> {
        let _lock = self.lock()?;
        let mut names = Names::read(&self.names())?;
        let (id, _) = find(&names, query)?;
        names.names.insert(name.clone(), id.clone());
        names.write(&self.names())?;
        Ok(id)
    }

    /// The blobs that another host or a registry needs to have the image.
    pub fn parts(&self, id: &Digest) -> Result<ImageParts, ImageError> {
        let note = Note::read(&self.note(id))?.ok_or_else(|| ImageError::NoBlobs(id.clone()))?;
        if let Some(digest) = note.blobs().find(|digest| !self.has_blob(digest)) {
            return Err(ImageError::BlobMissing {
                digest: digest.clone(),
            });
        }
        let mut manifests = note.indexes;
        manifests.push(note.manifest);
        Ok(ImageParts {
            config: id.clone(),
            manifests,
            layers: note.layers,
            sources: note.sources.into_iter().collect(),
        })
    }

    /// Remembers a registry that has the image: `repository@digest`.
    pub fn note_source(&self, id: &Digest, source: String) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let Some(mut note) = Note::read(&self.note(id))? else {
            return Ok(());
        };
        if note.sources.insert(source) {
            note.write(&self.note(id))?;
        }
        Ok(())
    }

    /// Everything that is known of an image.
    pub fn detail(&self, query: &str) -> Result<ImageDetail, ImageError> {
        let names = Names::read(&self.names())?;
        let (id, _) = find(&names, query)?;
        let config = self.config(&id)?;
        let note = Note::read(&self.note(&id))?;
        let blobs = note.as_ref().map_or(&[][..], |note| &note.layers);
        let mut layers = Vec::new();
        for (at, (diff_id, chain)) in config.diff_ids.iter().zip(config.chain_ids()).enumerate() {
            let blob = blobs.get(at);
            layers.push(LayerDetail {
                diff_id: diff_id.clone(),
                blob: blob.map(|blob| blob.digest.clone()),
                size: ByteSize(self.layer_note(&chain)?.size),
                blob_size: ByteSize(blob.map_or(0, |blob| blob.size)),
            });
        }
        Ok(ImageDetail {
            summary: self.summary(&id, &names)?,
            repo_digests: note
                .iter()
                .flat_map(|note| note.sources.iter().cloned())
                .collect(),
            manifest: note.map(|note| note.manifest),
            config: String::from_utf8_lossy(&self.document(&id)?).into_owned(),
            layers,
        })
    }
}
