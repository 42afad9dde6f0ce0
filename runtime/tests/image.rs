//! The image store against archives, good and bad. Needs root, as the store does.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::{Path, PathBuf},
    slice::from_ref,
};

use godwit_runtime::{
    image::{ImageError, LayerFault, Store, TarFault},
    rootfs::Rootfs,
};
use godwit_types::{Digest, ImageName};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar whose headers are taken as they are.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn header(path: &str, kind: EntryType, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header
    }

    fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(
            Self::header(path, EntryType::Regular, content.len()),
            content,
        )
    }

    fn dir(self, path: &str) -> Self {
        let mut header = Self::header(path, EntryType::Directory, 0);
        header.set_mode(0o755);
        self.raw(header, b"")
    }

    fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(path, kind, 0);
        header.set_link_name_literal(target).unwrap();
        self.raw(header, b"")
    }

    fn node(self, kind: EntryType, path: &str) -> Self {
        let mut header = Self::header(path, kind, 0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        self.raw(header, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while rest + len.to_string().len() != len {
                len += 1;
            }
            write!(content, "{len} {key}=").unwrap();
            content.extend(*value);
            content.push(b'\n');
        }
        self.raw(
            Self::header("pax", EntryType::XHeader, content.len()),
            &content,
        )
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let arch = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| sha(layer)).collect();
    serde_json::to_vec(&serde_json::json!({
        "created": "2001-09-09T01:46:40Z", "os": "linux", "architecture": arch,
        "config": {"Cmd": ["/bin/sh"], "Entrypoint": null, "Env": ["A=b"], "WorkingDir": "/w",
                   "User": "1", "StopSignal": "SIGQUIT", "Labels": {"k": "v"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

fn docker(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", &sha(&config)[7..]);
    let names: Vec<_> = (0..layers.len())
        .map(|n| format!("{n}/layer.tar"))
        .collect();
    let manifest = serde_json::json!(
        [{"Config": config_name, "RepoTags": [name], "Layers": names}]
    );
    let mut tar = Tar::default().file(&config_name, &config);
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.file(name, layer);
    }
    tar.file("manifest.json", manifest.to_string().as_bytes())
        .end()
}

struct Oci {
    blobs: BTreeMap<String, Vec<u8>>,
    index: serde_json::Value,
}

impl Oci {
    fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> serde_json::Value {
        let (digest, size) = (sha(&bytes), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// `stored` are the layers as they are compressed.
    fn new(name: &str, layers: &[Vec<u8>], stored: &[(&str, Vec<u8>)]) -> Self {
        let mut oci = Self {
            blobs: BTreeMap::new(),
            index: serde_json::Value::Null,
        };
        let config = oci.blob("application/vnd.oci.image.config.v1+json", config(layers));
        let stored: Vec<_> = stored.iter().map(|(t, b)| oci.blob(t, b.clone())).collect();
        let manifest = serde_json::json!(
            {"schemaVersion": 2, "config": config, "layers": stored}
        );
        let mut manifest = oci.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().into_bytes(),
        );
        manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
        oci.index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
        oci
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = Tar::default()
            .file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)
            .file("index.json", self.index.to_string().as_bytes());
        for (digest, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/sha256/{}", &digest[7..]), bytes);
        }
        tar.end()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A store in a directory of its own, with something beside it that nothing may touch.
struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "untouched").unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Loads one image with one layer, and says where it was unpacked.
    fn layer(&self, tar: Tar) -> Result<PathBuf, ImageError> {
        self.store.load(docker("x:1", &[tar.end()]).as_slice())?;
        let image = self.store.find(&"x:1".parse().unwrap())?.unwrap();
        Ok(image.layers.last().unwrap().clone())
    }

    /// The layer is refused, and nothing of it stays.
    fn refuse(&self, tar: Tar) -> LayerFault {
        let error = self.layer(tar).expect_err("the layer is bad");
        self.assert_clean();
        match error {
            ImageError::Layer { source, .. } => source,
            other => panic!("{other:?}"),
        }
    }

    fn assert_clean(&self) {
        for dir in ["tmp", "layers", "blobs/sha256"] {
            let left: Vec<_> = fs::read_dir(self.root().join(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir}: {left:?}");
        }
        assert_eq!(self.store.list().unwrap(), []);
        assert_eq!(
            fs::read_to_string(self.dir.path().join("outside")).unwrap(),
            "untouched"
        );
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

fn getxattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
    value.truncate(len);
    value
}

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
            eprintln!("skipped: no {}: run deploy/setup.sh", path.display());
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
