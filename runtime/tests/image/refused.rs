//! Archives that are not taken, and what is said then.

use std::{fs, slice::from_ref};

use godwit_runtime::image::{ImageError, LayerFault, TarFault};
use tar::EntryType;

use crate::fixture::*;

#[test]
fn bad_layer_entries_are_refused() {
    let fixture = Fixture::new();
    for path in ["../outside", "a/../../outside", "/outside", "a/.."] {
        let fault = fixture.refuse(Tar::default().file(path, b"bad"));
        assert!(
            matches!(fault, LayerFault::Path { .. }),
            "{path}: {fault:?}"
        );
    }
    for kind in [EntryType::Char, EntryType::Block] {
        let fault = fixture.refuse(Tar::default().file("ok", b"").node(kind, "dev/null"));
        assert!(matches!(fault, LayerFault::Device { .. }), "{fault:?}");
        assert!(fault.to_string().contains("`dev/null`"), "{fault}");
    }
    for target in [
        "../outside",
        "/etc/passwd",
        "missing",
        "",
        "dir",
        "a/../a",
        "self",
        "gone",
    ] {
        let tar = Tar::default().dir("dir").file(".wh.gone", b"");
        let fault = fixture.refuse(tar.link(EntryType::Link, "self", target));
        assert!(
            matches!(fault, LayerFault::LinkTarget { .. }),
            "{target}: {fault:?}"
        );
    }
    // Over a symlink that leads out.
    let outside = fixture.dir.path().to_str().unwrap().to_owned();
    let tar = Tar::default().link(EntryType::Symlink, "s", &outside);
    let fault = fixture.refuse(tar.link(EntryType::Link, "l", "s/outside"));
    assert!(matches!(fault, LayerFault::LinkTarget { .. }), "{fault:?}");
    for name in [".wh.", ".wh..", ".wh..."] {
        let fault = fixture.refuse(Tar::default().file(name, b""));
        assert!(
            matches!(fault, LayerFault::Whiteout { .. }),
            "{name}: {fault:?}"
        );
    }
    let fault = fixture.refuse(Tar::default().file("d/x", b"").file("d", b""));
    assert!(matches!(fault, LayerFault::Replaces { .. }), "{fault:?}");
    let fault = fixture.refuse(Tar::default().file("f", b"").file("f/x", b""));
    assert!(matches!(fault, LayerFault::Parent { .. }), "{fault:?}");
    let deep = "d/".repeat(300) + "x";
    let fault = fixture.refuse(
        Tar::default()
            .pax(&[("path", deep.as_bytes())])
            .file("x", b""),
    );
    assert!(matches!(fault, LayerFault::Path { .. }), "{fault:?}");
    let fault = fixture.refuse(Tar::default().pax(&[("uid", b"4294967295")]).file("x", b""));
    assert!(matches!(fault, LayerFault::Attribute { .. }), "{fault:?}");
    let tar = Tar::default()
        .pax(&[("GNU.sparse.major", b"1")])
        .file("x", b"");
    assert!(matches!(
        fixture.refuse(tar),
        LayerFault::Tar(TarFault::Malformed { .. })
    ));
    let mut huge = Tar::header("huge", EntryType::Regular, 0);
    huge.set_size(1 << 50);
    let fault = fixture.refuse(Tar::default().raw(huge, b""));
    assert!(
        matches!(fault, LayerFault::NoSpace { need, .. } if need == 1 << 50),
        "{fault:?}"
    );
    let mut huge = Tar::header("huge", EntryType::XHeader, 0);
    huge.set_size(1 << 40);
    let fault = fixture.refuse(Tar::default().raw(huge, b""));
    assert!(
        matches!(fault, LayerFault::Tar(TarFault::Limit { .. })),
        "{fault:?}"
    );
}

#[test]
fn bad_archive_members_are_refused() {
    let fixture = Fixture::new();
    let refuse = |tar: Tar| {
        let error = fixture
            .store
            .load(tar.end().as_slice())
            .expect_err("the archive is bad");
        fixture.assert_clean();
        error
    };
    for path in ["../outside", "/outside", "a/../outside"] {
        let error = refuse(Tar::default().file(path, b"bad"));
        assert!(
            matches!(error, ImageError::MemberPath { .. }),
            "{path}: {error:?}"
        );
    }
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        let error = refuse(Tar::default().node(kind, "x"));
        assert!(matches!(error, ImageError::MemberKind { .. }), "{error:?}");
    }
    for target in ["/etc/passwd", "../../etc/passwd", "a/../../b", "", ".."] {
        let error = refuse(Tar::default().link(EntryType::Symlink, "x/layer.tar", target));
        assert!(
            matches!(error, ImageError::MemberLink { .. }),
            "{target}: {error:?}"
        );
    }
    let error = refuse(Tar::default().file("a", b"").file("./a", b""));
    assert!(matches!(error, ImageError::MemberTwice { .. }), "{error:?}");
    let error = refuse(Tar::default().file("hello", b"world"));
    assert!(matches!(error, ImageError::NotAnImage { .. }), "{error:?}");
    let error = refuse(Tar::default().file("manifest.json", b"{}"));
    assert!(matches!(error, ImageError::Json { .. }), "{error:?}");
    let error = refuse(Tar::default().file("manifest.json", &vec![b' '; (4 << 20) + 1]));
    assert!(matches!(error, ImageError::Limit { .. }), "{error:?}");
    let many = vec![Tar::default().end(); 128];
    let error = fixture
        .store
        .load(docker("x:1", &many).as_slice())
        .unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Limit {
                found: 128,
                limit: 127,
                ..
            }
        ),
        "{error:?}"
    );
    let error = fixture
        .store
        .load(docker("Bad Name", &many[..1]).as_slice())
        .unwrap_err();
    assert!(matches!(error, ImageError::Name { .. }), "{error:?}");
    let error = fixture
        .store
        .load(docker("x:1", &[]).as_slice())
        .unwrap_err();
    assert!(matches!(error, ImageError::NoLayers { .. }), "{error:?}");
    fixture.assert_clean();
}

#[test]
fn a_layer_that_images_share_may_be_a_symlink() {
    let layer = Tar::default().file("a", b"1").end();
    let layers = [layer.clone()];
    let config = config(&layers);
    let manifest = serde_json::json!(
        [{"Config": "c.json", "RepoTags": null, "Layers": ["two/layer.tar"]}]
    );
    let archive = Tar::default()
        .file("one/layer.tar", &layer)
        .link(EntryType::Symlink, "two/layer.tar", "../one/layer.tar")
        .file("c.json", &config)
        .file("manifest.json", manifest.to_string().as_bytes())
        .end();
    let fixture = Fixture::new();
    let loaded = fixture.store.load(archive.as_slice()).unwrap();
    assert!(loaded[0].names.is_empty());
}

#[test]
fn digests_and_sizes_are_checked() {
    let fixture = Fixture::new();
    let layer = Tar::default().file("a", b"1").end();
    let other = Tar::default().file("a", b"2").end();
    let media = "application/vnd.oci.image.layer.v1.tar";

    // The blob is what the manifest says, but not what the configuration says.
    let oci = Oci::new("x:1", from_ref(&layer), &[(media, other.clone())]);
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(
        matches!(&error, ImageError::Layer { layer: named, source: LayerFault::Digest { found } }
            if named.as_str() == sha(&layer) && found.as_str() == sha(&other)),
        "{error:?}"
    );
    // The blob is not what the manifest says.
    let mut oci = Oci::new("x:1", from_ref(&layer), &[(media, layer.clone())]);
    oci.blobs.insert(sha(&layer), other.clone());
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error:?}");
    oci.blobs.insert(sha(&layer), b"short".to_vec());
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(
        matches!(error, ImageError::Size { found: 5, .. }),
        "{error:?}"
    );
    oci.blobs.remove(&sha(&layer));
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::Missing {
                truncated: false,
                ..
            }
        ),
        "{error:?}"
    );
    let oci = Oci::new("x:1", from_ref(&layer), &[("text/plain", layer.clone())]);
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::MediaType { .. }), "{error:?}");
    let oci = Oci::new("x:1", from_ref(&layer), &[]);
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::LayerCount {
                layers: 0,
                diff_ids: 1,
                ..
            }
        ),
        "{error:?}"
    );

    // A docker archive whose configuration is not what its name says.
    let manifest = serde_json::json!(
        [{"Config": format!("{}.json", "0".repeat(64)), "RepoTags": ["x:1"], "Layers": ["l"]}]
    );
    let archive = Tar::default()
        .file(
            &format!("{}.json", "0".repeat(64)),
            &config(from_ref(&layer)),
        )
        .file("l", &layer)
        .file("manifest.json", manifest.to_string().as_bytes())
        .end();
    let error = fixture.store.load(archive.as_slice()).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error:?}");
    fixture.assert_clean();
}

#[test]
fn a_truncated_archive_names_what_is_missing_and_leaves_the_rest_alone() {
    let fixture = Fixture::new();
    let kept = fixture.layer(Tar::default().file("kept", b"yes")).unwrap();
    let before = fixture.store.list().unwrap();

    let big = Tar::default().file("big", &vec![3; 200_000]).end();
    let archive = docker("y:1", &[big]);
    for cut in [0, 100, 700, 5_000, 150_000, archive.len() - 2000] {
        for bytes in [
            archive[..cut].to_vec(),
            gzip(&archive)[..cut.min(400)].to_vec(),
        ] {
            let error = fixture.store.load(bytes.as_slice()).unwrap_err();
            assert!(
                matches!(
                    error,
                    ImageError::Archive(TarFault::Truncated { .. }) | ImageError::NotAnImage { .. }
                ),
                "{cut}: {error:?}"
            );
        }
    }
    // At a member's end: it is the manifest that tells.
    let layer = Tar::default().end();
    let manifest = serde_json::json!([{"Config": "c", "Layers": ["layer.tar"]}]).to_string();
    let tar = Tar::default().file("manifest.json", manifest.as_bytes());
    let tar = tar.file("c", &config(&[layer]));
    let error = fixture.store.load(tar.0.as_slice()).unwrap_err();
    assert!(
        matches!(&error, ImageError::Missing { member, truncated: true, .. }
            if member == "layer.tar"),
        "{error:?}"
    );
    assert!(error.to_string().ends_with("it is truncated"), "{error}");

    assert_eq!(fixture.store.list().unwrap(), before);
    assert_eq!(fs::read(kept.join("kept")).unwrap(), b"yes");
    assert_eq!(fs::read_dir(fixture.root().join("tmp")).unwrap().count(), 0);
    assert_eq!(
        fs::read_dir(fixture.root().join("layers")).unwrap().count(),
        1
    );
}
