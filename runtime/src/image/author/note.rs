//! How what was made here is sent: the tars of its layers and a manifest, as if it had come from a
//! registry, so that it can be pushed, saved and given to another host.

use std::{collections::BTreeMap, fs};

use godwit_types::{BlobPart, Digest};

use crate::image::{
    ImageError,
    config::digest,
    names::{Names, write_atomic},
    note::Note,
    store::Store,
};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

pub(super) fn write(
    store: &Store,
    id: &Digest,
    size: u64,
    layers: &[Digest],
) -> Result<(), ImageError> {
    // By diff id, what other images have of these layers: those that came compressed stay so.
    let mut known: BTreeMap<Digest, BlobPart> = BTreeMap::new();
    for image in Names::read(&store.names())?.images {
        let (Ok(Some(note)), Ok(config)) = (Note::read(&store.note(&image)), store.config(&image))
        else {
            continue;
        };
        known.extend(config.diff_ids.into_iter().zip(note.layers));
    }
    let mut parts = Vec::new();
    for layer in layers {
        let blob = store.blob(layer);
        let part = match fs::metadata(&blob) {
            Ok(found) => BlobPart {
                digest: layer.clone(),
                size: found.len(),
                media_type: LAYER.into(),
            },
            Err(_) => match known.remove(layer) {
                Some(part) => part,
                // A base without a note: it runs, and can't be sent.
                None => return Ok(()),
            },
        };
        parts.push(part);
    }
    let described = |kind: &str, digest: &Digest, size: u64| serde_json::json!({"mediaType": kind, "digest": digest, "size": size});
    let each: Vec<_> = parts
        .iter()
        .map(|p| described(&p.media_type, &p.digest, p.size))
        .collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": described(CONFIG, id, size), "layers": each});
    let bytes = manifest.to_string().into_bytes();
    let path = store.blob(&digest(&bytes));
    if !path.exists() {
        write_atomic(&path, &bytes)?;
    }
    Note::new(digest(&bytes), Vec::new(), parts).write(&store.note(id))
}
