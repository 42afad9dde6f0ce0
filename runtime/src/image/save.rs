//! Images as one archive: a docker-archive that is an OCI image layout as well, as new versions of
//! Docker write it. The layers are the blobs as they came, so that their digests stay.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
};

use godwit_types::{Digest, ImageName, ImageParts};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::{
    error::ImageError,
    names::Names,
    read,
    store::{Pin, Store},
};

/// What an archive is to hold: found, and kept from being removed while it is written.
#[derive(Debug)]
pub struct Selection {
    images: Vec<(ImageParts, Vec<ImageName>)>,
    _pin: Pin,
}

impl Store {
    /// Finds images by names or ids. One that was asked for by a name is saved under that name
    /// alone; by its id, without one.
    pub fn select(&self, queries: &[String]) -> Result<Selection, ImageError> {
        let _using = self.using();
        let names = Names::read(&self.names())?;
        let mut images: Vec<(ImageParts, Vec<ImageName>)> = Vec::new();
        for query in queries {
            let (id, name) = read::find(&names, query)?;
            match images.iter_mut().find(|(parts, _)| parts.config == id) {
                Some((_, called)) => called.extend(name),
                None => images.push((self.parts(&id)?, name.into_iter().collect())),
            }
        }
        let digests = images.iter().flat_map(|(parts, _)| {
            let layers = parts.layers.iter().map(|layer| &layer.digest);
            parts.manifests.iter().chain([&parts.config]).chain(layers)
        });
        let pin = self.pin(digests.cloned().collect());
        Ok(Selection { images, _pin: pin })
    }

    /// Writes the archive, a layer at a time.
    pub fn save(&self, selection: &Selection, out: impl Write) -> Result<(), ImageError> {
        let mut archive = Builder::new(out);
        let mut written = BTreeSet::new();
        let (mut index, mut docker) = (Vec::new(), Vec::new());
        entry(
            &mut archive,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        for (parts, names) in &selection.images {
            let manifest = parts
                .manifests
                .last()
                .ok_or_else(|| ImageError::NoBlobs(parts.config.clone()))?;
            let layers = parts.layers.iter().map(|layer| &layer.digest);
            for digest in layers.clone().chain([&parts.config, manifest]) {
                if written.insert(digest.clone()) {
                    self.save_blob(&mut archive, digest)?;
                }
            }
            let document = self.document(manifest)?;
            let media_type = serde_json::from_slice::<serde_json::Value>(&document)
                .ok()
                .and_then(|value| value["mediaType"].as_str().map(str::to_owned))
                .unwrap_or_else(|| super::manifest::ACCEPTED[0].to_owned());
            let described = |annotations: serde_json::Value| {
                json!({"mediaType": media_type, "digest": manifest, "size": document.len(),
                    "annotations": annotations})
            };
            if names.is_empty() {
                index.push(described(json!({})));
            }
            for name in names {
                index.push(described(json!({
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name.tag(),
                })));
            }
            docker.push(json!({
                "Config": path(&parts.config),
                "RepoTags": names,
                "Layers": layers.map(path).collect::<Vec<_>>(),
            }));
        }
        let index = json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index});
        entry(&mut archive, "index.json", index.to_string().as_bytes())?;
        let docker = serde_json::Value::Array(docker);
        entry(&mut archive, "manifest.json", docker.to_string().as_bytes())?;
        let mut out = archive.into_inner().map_err(ImageError::Save)?;
        out.flush().map_err(ImageError::Save)
    }

    fn save_blob<W: Write>(
        &self,
        archive: &mut Builder<W>,
        digest: &Digest,
    ) -> Result<(), ImageError> {
        let missing = || ImageError::BlobMissing {
            digest: digest.clone(),
        };
        let (file, size) = self.open_blob(digest)?.ok_or_else(missing)?;
        let mut header = header(size);
        archive
            .append_data(&mut header, path(digest), exactly(file, size))
            .map_err(ImageError::Save)
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A file that shrank must not make an archive that looks whole.
fn exactly(file: File, size: u64) -> impl io::Read {
    io::Read::take(file, size)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(0);
    header
}

fn entry<W: Write>(archive: &mut Builder<W>, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
    archive
        .append_data(&mut header(bytes.len() as u64), name, bytes)
        .map_err(ImageError::Save)
}
