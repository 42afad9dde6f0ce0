//! Blobs that are kept, images that are saved and removed, and what is left of those.

use std::fs;

use godwit_runtime::image::{Arrival, ImageError, Uses};
use godwit_types::{Digest, ImageName};

use super::fixture::*;

fn none() -> Result<Uses, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Uses::new())
}

fn count(fixture: &Fixture, dir: &str) -> usize {
    fs::read_dir(fixture.root().join(dir)).unwrap().count()
}

fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

/// Two images that share their lower layer.
fn two() -> (Fixture, Digest, Digest) {
    let fixture = Fixture::new();
    let base = Tar::default().file("base", b"base").end();
    let mut ids = Vec::new();
    for n in 0..2u8 {
        let top = Tar::default().file(&format!("top{n}"), &[n; 1000]).end();
        let archive = docker(&format!("x:{n}"), &[base.clone(), top]);
        ids.push(
            fixture.store.load(archive.as_slice()).unwrap()[0]
                .id
                .clone(),
        );
    }
    let second = ids.pop().unwrap();
    (fixture, ids.pop().unwrap(), second)
}

#[test]
fn what_was_saved_loads_elsewhere_as_the_same_image() {
    let (fixture, first, second) = two();
    let queries = ["x:0".to_owned(), second.hex()[..12].to_owned()];
    let selection = fixture.store.select(&queries).unwrap();
    let mut archive = Vec::new();
    fixture.store.save(&selection, &mut archive).unwrap();
    let other = Fixture::new();
    let loaded = other.store.load(archive.as_slice()).unwrap();
    let ids: Vec<_> = loaded.iter().map(|image| image.id.clone()).collect();
    assert_eq!(ids, [first.clone(), second.clone()]);
    assert_eq!(loaded[0].names, [name("x:0")]);
    assert_eq!(loaded[1].names, []);
    // The blobs are the same: what is saved there is the same archive.
    let again = other.store.select(&["x:0".into(), second.to_string()]);
    let mut bytes = Vec::new();
    other.store.save(&again.unwrap(), &mut bytes).unwrap();
    assert_eq!(archive, bytes);
    other.store.verify().unwrap();
}

#[test]
fn an_image_arrives_by_its_blobs() {
    let (fixture, first, _) = two();
    let parts = fixture.store.parts(&first).unwrap();
    let other = Fixture::new();
    let arrival = Arrival {
        names: vec![name("y")],
        config: parts.config.clone(),
        manifests: parts.manifests.clone(),
        layers: parts
            .layers
            .iter()
            .map(|part| part.digest.clone())
            .collect(),
        sources: vec!["reg.example/y@sha256:0".into()],
        any_platform: false,
    };
    assert!(matches!(
        other.store.install(&arrival),
        Err(ImageError::BlobMissing { .. })
    ));
    other.assert_clean();
    let all = parts.manifests.iter().chain([&parts.config]);
    for digest in all.chain(&arrival.layers) {
        let (mut file, size) = fixture.store.open_blob(digest).unwrap().unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        let mut ingest = other.store.ingest(digest, size).unwrap().unwrap();
        ingest.write(&bytes).unwrap();
        ingest.finish().unwrap();
    }
    assert!(!other.store.is_whole(&arrival).unwrap());
    let summary = other.store.install(&arrival).unwrap();
    assert_eq!(
        (summary.id.clone(), summary.names),
        (first, vec![name("y")])
    );
    assert!(other.store.is_whole(&arrival).unwrap());
    let detail = other.store.detail("y").unwrap();
    assert_eq!(detail.repo_digests, ["reg.example/y@sha256:0"]);
    other.store.verify().unwrap();
}

#[test]
fn a_removed_image_leaves_what_others_use_and_nothing_else() {
    let (fixture, first, second) = two();
    let freed = fixture.store.remove("x:0", false, none).unwrap();
    assert_eq!(freed.deleted, std::slice::from_ref(&first));
    assert!(freed.bytes > 1000);
    assert_eq!(count(&fixture, "layers"), 2);
    // A configuration, a manifest, two layers.
    assert_eq!(
        (count(&fixture, "blobs/sha256"), count(&fixture, "notes")),
        (4, 1)
    );
    assert_eq!(fixture.store.get(&first).unwrap(), None);
    fixture.store.verify().unwrap();
    fixture.store.remove(second.as_str(), false, none).unwrap();
    fixture.assert_clean();
}

#[test]
fn names_go_one_by_one_and_an_id_with_several_by_force() {
    let (fixture, first, _) = two();
    fixture.store.tag("x:0", &name("z")).unwrap();
    let refused = fixture.store.remove(first.as_str(), false, none);
    assert!(matches!(
        refused,
        Err(ImageError::ManyNames { count: 2, .. })
    ));
    let freed = fixture.store.remove("z", false, none).unwrap();
    assert_eq!((freed.untagged, freed.deleted), (vec![name("z")], vec![]));
    fixture.store.tag("x:0", &name("z")).unwrap();
    let freed = fixture.store.remove(first.short(), true, none).unwrap();
    assert_eq!((freed.untagged.len(), freed.deleted.len()), (2, 1));
}

#[test]
fn what_a_container_uses_is_neither_removed_nor_pruned() {
    let (fixture, first, second) = two();
    let uses = || Ok(Uses::from([(first.clone(), vec!["web".to_owned()])]));
    let refused = fixture.store.remove("x:0", true, uses).unwrap_err();
    assert!(refused.to_string().contains("container web"), "{refused}");
    let freed = fixture.store.prune(true, uses).unwrap();
    assert_eq!(freed.deleted, [second]);
    assert_eq!(fixture.store.get(&first).unwrap().unwrap().layers.len(), 2);
    // Even without any name.
    let usage = fixture.store.usage(&uses().unwrap()).unwrap();
    assert_eq!((usage.images.len(), usage.images[0].containers), (1, 1));
    assert_eq!(usage.reclaimable.0, 0);
}

#[test]
fn what_is_pinned_stays_until_it_is_not() {
    let (fixture, first, _) = two();
    let pin = fixture.store.pin(vec![first.clone()]);
    assert!(fixture.store.remove("x:0", true, none).is_err());
    fixture.store.prune(true, none).unwrap();
    assert_eq!(fixture.store.list().unwrap().len(), 1);
    drop(pin);
    fixture.store.prune(true, none).unwrap();
    fixture.assert_clean();
}

#[test]
fn what_interruptions_left_is_pruned() {
    let (fixture, ..) = two();
    // Cut off after `names.json` was written, before anything was removed.
    fs::write(
        fixture.root().join("names.json"),
        r#"{"version": 1, "names": {}, "images": []}"#,
    )
    .unwrap();
    fs::write(fixture.root().join("blobs/sha256/half.new"), "x").unwrap();
    let digest = Digest::from_sha256([9; 32]);
    let mut ingest = fixture.store.ingest(&digest, 100).unwrap().unwrap();
    ingest.write(&[1; 50]).unwrap();
    assert!(fixture.store.prune(false, none).unwrap().bytes > 2000);
    assert_eq!(count(&fixture, "ingest"), 1, "somebody is at it");
    drop(ingest);
    assert_eq!(fixture.store.prune(false, none).unwrap().bytes, 50);
    fixture.assert_clean();
    assert_eq!(
        (count(&fixture, "ingest"), count(&fixture, "notes")),
        (0, 0)
    );
}
