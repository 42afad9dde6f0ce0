//! The image store against archives, good and bad. Needs root, as the store does.

mod fixture;
mod keep;
mod refused;

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::Path,
};

use godwit_runtime::{
    image::{ImageError, LayerFault, Store},
    rootfs::Rootfs,
};
use godwit_types::{Digest, ImageName};
use proptest::prelude::*;
use tar::EntryType;

use fixture::*;

#[test]
fn a_docker_archive_and_an_image_layout_are_the_same_image() {
    let layers = [
        Tar::default()
            .dir("./")
            .dir("bin/")
            .file("bin/sh", b"#!")
            .end(),
        Tar::default().file("etc/x", b"second").end(),
    ];
    let stored = [
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            gzip(&layers[0]),
        ),
        (
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
            zstd::encode_all(&layers[1][..], 1).unwrap(),
        ),
    ];
    let plain = docker("docker.io/library/redis:7", &layers);
    let oci = Oci::new("redis:7", &layers, &stored).tar();
    for archive in [
        plain.clone(),
        gzip(&plain),
        zstd::encode_all(&plain[..], 1).unwrap(),
        oci,
    ] {
        let fixture = Fixture::new();
        let loaded = fixture.store.load(archive.as_slice()).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].names, ["redis:7".parse::<ImageName>().unwrap()]);
        assert_eq!((loaded[0].size.0, loaded[0].created), (8, 1_000_000_000));
        assert_eq!(loaded[0].id.as_str(), sha(&config(&layers)));
        assert_eq!(fixture.store.list().unwrap(), loaded);

        let image = fixture.store.find(&loaded[0].names[0]).unwrap().unwrap();
        assert_eq!(fixture.store.get(&loaded[0].id).unwrap().unwrap(), image);
        assert_eq!(image.config.cmd, ["/bin/sh"]);
        assert_eq!(image.config.working_dir, "/w");
        assert_eq!(image.config.labels["k"], "v");
        assert_eq!(fs::read(image.layers[0].join("bin/sh")).unwrap(), b"#!");
        assert_eq!(fs::read(image.layers[1].join("etc/x")).unwrap(), b"second");
        assert_eq!(fs::read_dir(fixture.root().join("tmp")).unwrap().count(), 0);

        // Again: the same, and nothing is unpacked anew.
        let before = fs::metadata(&image.layers[0]).unwrap().ino();
        assert_eq!(fixture.store.load(archive.as_slice()).unwrap(), loaded);
        assert_eq!(fs::metadata(&image.layers[0]).unwrap().ino(), before);
    }
}

#[test]
fn a_name_moves_and_its_former_image_stays() {
    let fixture = Fixture::new();
    let first = fixture
        .store
        .load(docker("x:1", &[Tar::default().file("a", b"1").end()]).as_slice())
        .unwrap();
    let second = fixture
        .store
        .load(docker("x:1", &[Tar::default().file("a", b"2").end()]).as_slice())
        .unwrap();
    assert_eq!(
        fixture
            .store
            .find(&"x:1".parse().unwrap())
            .unwrap()
            .unwrap()
            .id,
        second[0].id
    );
    let former = fixture.store.get(&first[0].id).unwrap().unwrap();
    assert_eq!(fs::read(former.layers[0].join("a")).unwrap(), b"1");
    let listed = fixture.store.list().unwrap();
    let unnamed = listed.iter().find(|image| image.id == first[0].id).unwrap();
    assert!(unnamed.names.is_empty());
    assert!(fixture.store.find(&"y".parse().unwrap()).unwrap().is_none());
    assert!(
        fixture
            .store
            .get(&Digest::from_sha256([0; 32]))
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_nested_index_gives_this_platform() {
    let layers = [Tar::default().file("a", b"1").end()];
    let stored = [("application/vnd.oci.image.layer.v1.tar", layers[0].clone())];
    let mut oci = Oci::new("7.2", &layers, &stored);
    let mut here = oci.index["manifests"][0].take();
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    here["platform"] = serde_json::json!({"os": "linux", "architecture": arch});
    let mut other = here.clone();
    // Its blob is not in the archive, as after `docker save` of one platform.
    other["digest"] = sha(b"other").into();
    other["platform"] = serde_json::json!({"os": "linux", "architecture": "s390x"});
    let inner = serde_json::json!({"manifests": [other.clone(), here]}).to_string();
    let mut nested = oci.blob(
        "application/vnd.oci.image.index.v1+json",
        inner.into_bytes(),
    );
    nested["annotations"] = serde_json::json!({
        "org.opencontainers.image.ref.name": "7.2",
        "io.containerd.image.name": "docker.io/library/redis:7.2",
    });
    oci.index = serde_json::json!({"manifests": [nested]});
    let fixture = Fixture::new();
    let loaded = fixture.store.load(oci.tar().as_slice()).unwrap();
    assert_eq!(loaded[0].names, ["redis:7.2".parse::<ImageName>().unwrap()]);

    let fixture = Fixture::new();
    oci.index = serde_json::json!({"manifests": [other]});
    let error = fixture.store.load(oci.tar().as_slice()).unwrap_err();
    assert!(
        matches!(&error, ImageError::Platform { found, .. } if found == "`linux/s390x`"),
        "{error:?}"
    );
    fixture.assert_clean();
}

#[test]
fn a_layer_keeps_what_its_entries_have() {
    let capability = [
        1, 0, 0, 2, 0x0a, 0x20, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0,
    ];
    let mut setuid = Tar::header("bin/su", EntryType::Regular, 2);
    setuid.set_mode(0o4755);
    setuid.set_uid(7);
    setuid.set_gid(8);
    let mut sparse = Tar::header("sparse", EntryType::GNUSparse, 512);
    {
        let gnu = sparse.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(512);
        gnu.set_real_size(2 << 20);
    }
    let long = "long/".repeat(30) + "name";
    let fixture = Fixture::new();
    let fs_dir = fixture
        .layer(
            Tar::default()
                .dir("./")
                .dir("./bin/")
                .pax(&[
                    ("mtime", b"1234567890.5"),
                    ("SCHILY.xattr.security.capability", &capability),
                    ("SCHILY.xattr.user.note", b"line\nline"),
                    ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ])
                .raw(setuid, b"su")
                .link(EntryType::Link, "bin/su2", "./bin/su")
                .link(EntryType::Symlink, "bin/sh", "/nowhere/../sh")
                .node(EntryType::Fifo, "fifo")
                .raw(sparse, &[7; 512])
                .pax(&[("path", long.as_bytes())])
                .file("short", b"x")
                .file("bin/twice", b"first")
                .file("bin/twice", b"second"),
        )
        .unwrap();
    let su = fs::metadata(fs_dir.join("bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid()), (0o4755, 7, 8));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_234_567_890, 500_000_000));
    assert_eq!(
        fs::metadata(fs_dir.join("bin/su2")).unwrap().ino(),
        su.ino()
    );
    assert_eq!(
        fs::metadata(fs_dir.join("bin")).unwrap().mtime(),
        1_000_000_000
    );
    assert_eq!(
        getxattr(&fs_dir.join("bin/su"), "security.capability"),
        capability
    );
    assert_eq!(getxattr(&fs_dir.join("bin/su"), "user.note"), b"line\nline");
    assert_eq!(
        getxattr(&fs_dir.join("bin/su"), "trusted.overlay.redirect"),
        b""
    );
    assert_eq!(
        fs::read_link(fs_dir.join("bin/sh")).unwrap(),
        Path::new("/nowhere/../sh")
    );
    assert!(
        fs::metadata(fs_dir.join("fifo"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    let sparse = fs::read(fs_dir.join("sparse")).unwrap();
    assert_eq!((sparse.len(), sparse[1 << 20], sparse[0]), (2 << 20, 7, 0));
    assert!(fs::metadata(fs_dir.join("sparse")).unwrap().blocks() < 100);
    assert_eq!(fs::read(fs_dir.join(long)).unwrap(), b"x");
    assert_eq!(fs::read(fs_dir.join("bin/twice")).unwrap(), b"second");
}

#[test]
fn a_directory_without_an_entry_is_like_the_one_below() {
    let mut tmp = Tar::header("tmp/", EntryType::Directory, 0);
    tmp.set_mode(0o1777);
    tmp.set_uid(5);
    let fixture = Fixture::new();
    let layers = [
        Tar::default().raw(tmp, b"").end(),
        Tar::default().file("tmp/new/x", b"").end(),
    ];
    fixture
        .store
        .load(docker("x:1", &layers).as_slice())
        .unwrap();
    let image = fixture
        .store
        .find(&"x:1".parse().unwrap())
        .unwrap()
        .unwrap();
    let tmp = fs::metadata(image.layers[1].join("tmp")).unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid()), (0o1777, 5));
    let new = fs::metadata(image.layers[1].join("tmp/new")).unwrap();
    assert_eq!((new.mode() & 0o7777, new.uid()), (0o755, 0));
}

#[test]
fn whiteouts_become_overlayfs_marks() {
    let fixture = Fixture::new();
    let fs_dir = fixture
        .layer(
            Tar::default()
                .file("a/.wh.gone", b"")
                .dir("b")
                .file("b/.wh..wh..opq", b"")
                .file(".wh.c", b"")
                .file("c/anew", b"")
                .dir("d")
                .file(".wh.d", b"")
                .file(".wh..wh.plnk/1.2", b""),
        )
        .unwrap();
    let gone = fs::symlink_metadata(fs_dir.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for opaque in ["b", "c", "d"] {
        assert_eq!(
            getxattr(&fs_dir.join(opaque), "trusted.overlay.opaque"),
            b"y",
            "{opaque}"
        );
    }
    assert_eq!(fs::read_dir(&fs_dir).unwrap().count(), 4);
}

#[test]
fn what_a_layer_deletes_is_gone_in_the_root() {
    let fixture = Fixture::new();
    let layers = [
        Tar::default()
            .file("a/gone", b"")
            .file("a/kept", b"")
            .file("b/gone", b"")
            .end(),
        Tar::default()
            .file("a/.wh.gone", b"")
            .file("b/.wh..wh..opq", b"")
            .file("b/x", b"")
            .end(),
    ];
    fixture
        .store
        .load(docker("x:1", &layers).as_slice())
        .unwrap();
    let image = fixture
        .store
        .find(&"x:1".parse().unwrap())
        .unwrap()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::new(&dir.path().join("root"));
    rootfs.mount(&image.layers).unwrap();
    let names = |name: &str| -> Vec<_> {
        let entries = fs::read_dir(rootfs.merged().join(name)).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    let seen = (names("a"), names("b"));
    rootfs.remove().unwrap();
    assert_eq!(seen, (vec!["kept".into()], vec!["x".into()]));
}

#[test]
fn a_symlink_among_the_parents_leads_inside_or_nowhere() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().to_str().unwrap().to_owned();
    for target in [outside.as_str(), "/", "..", "../../../../../.."] {
        let fixture = Fixture::new();
        let tar = Tar::default()
            .link(EntryType::Symlink, "evil", target)
            .file("evil/outside", b"overwritten")
            .file("evil/created", b"");
        match fixture.layer(tar) {
            Ok(fs_dir) => {
                assert_eq!(
                    fs::read(fs_dir.join("outside")).unwrap(),
                    b"overwritten",
                    "{target}"
                );
            }
            Err(ImageError::Layer {
                source: LayerFault::Parent { .. },
                ..
            }) => {
                fixture.assert_clean();
            }
            Err(other) => panic!("{target}: {other:?}"),
        }
        let beside = fs::read_to_string(fixture.dir.path().join("outside")).unwrap();
        assert_eq!(beside, "untouched", "{target}");
        assert!(!fixture.dir.path().join("created").exists());
    }
    assert_eq!(
        fs::read_to_string(fixture.dir.path().join("outside")).unwrap(),
        "untouched"
    );
}

#[test]
fn writing_through_a_symlink_of_the_same_name_replaces_it() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("outside");
    let fs_dir = fixture
        .layer(
            Tar::default()
                .link(EntryType::Symlink, "x", outside.to_str().unwrap())
                .file("x", b"mine"),
        )
        .unwrap();
    assert_eq!(fs::read(fs_dir.join("x")).unwrap(), b"mine");
    assert_eq!(fs::read(outside).unwrap(), b"untouched");
}

#[test]
fn opening_clears_interrupted_loads_and_spares_running_ones() {
    let fixture = Fixture::new();
    let left = fixture.root().join("tmp/interrupted");
    fs::create_dir_all(left.join("layers/x")).unwrap();
    symlink("/", left.join("link")).unwrap();
    let running = fixture.root().join("tmp/running");
    fs::create_dir(&running).unwrap();
    let lock = fs::File::open(&running).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Store::open(&fixture.root()).unwrap();
    assert!(!left.exists());
    assert!(running.exists());
}

#[test]
fn loads_at_the_same_time_share_layers() {
    let fixture = Fixture::new();
    let layers = [Tar::default().file("a", &vec![1; 100_000]).end()];
    std::thread::scope(|scope| {
        for n in 0..4 {
            let archive = docker(&format!("x:{n}"), &layers);
            let store = fixture.store.clone();
            scope.spawn(move || store.load(archive.as_slice()).unwrap());
        }
    });
    let listed = fixture.store.list().unwrap();
    assert_eq!((listed.len(), listed[0].names.len()), (1, 4));
}

#[test]
fn a_damaged_store_is_noticed() {
    let fixture = Fixture::new();
    fixture.layer(Tar::default().file("a", b"")).unwrap();
    let id = fixture.store.list().unwrap()[0].id.clone();
    fs::write(fixture.root().join("blobs/sha256").join(id.hex()), "{}").unwrap();
    assert!(matches!(
        fixture.store.get(&id),
        Err(ImageError::Damaged { .. })
    ));
    assert_eq!(fixture.store.list().unwrap(), []);
    fs::write(fixture.root().join("names.json"), r#"{"version": 2}"#).unwrap();
    assert!(matches!(
        fixture.store.list(),
        Err(ImageError::Version {
            found: 2,
            known: 1,
            ..
        })
    ));
}

#[test]
fn the_images_of_the_setup_load() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/setup/images");
    for (name, program) in [
        ("busybox", "bin/busybox"),
        ("redis", "usr/bin/redis-server"),
    ] {
        let path = images.join(format!("{name}.tar"));
        let Ok(archive) = fs::File::open(&path) else {
            let missing = format!("no {}: run deploy/setup.sh", path.display());
            assert!(
                std::env::var_os("GODWIT_REQUIRE_ROOT_TESTS").is_none(),
                "{missing}"
            );
            println!("skipped: {missing}");
            continue;
        };
        let fixture = Fixture::new();
        let loaded = fixture.store.load(archive).unwrap();
        assert_eq!(loaded[0].names, [name.parse::<ImageName>().unwrap()]);
        let image = fixture.store.get(&loaded[0].id).unwrap().unwrap();
        assert!(
            image
                .layers
                .iter()
                .any(|layer| layer.join(program).exists()),
            "{image:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_archive_is_loaded_or_refused(at in 0usize..8192, byte: u8, cut in 0usize..12000) {
        let layer = Tar::default().dir("d").file("d/a", &[9; 3000]).link(EntryType::Link, "b", "d/a");
        let mut archive = docker("x:1", &[layer.end()]);
        let len = archive.len();
        archive[at % len] = byte;
        archive.truncate(len.min(cut + 512));
        let fixture = Fixture::new();
        if fixture.store.load(archive.as_slice()).is_err() {
            fixture.assert_clean();
        }
    }
}
