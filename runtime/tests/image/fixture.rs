//! Archives made by hand, byte by byte where need be, and a store to load them into.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use godwit_runtime::image::{ImageError, LayerFault, Store};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A tar whose headers are taken as they are.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn header(path: &str, kind: EntryType, size: usize) -> Header {
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

    pub fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.raw(
            Self::header(path, EntryType::Regular, content.len()),
            content,
        )
    }

    pub fn dir(self, path: &str) -> Self {
        let mut header = Self::header(path, EntryType::Directory, 0);
        header.set_mode(0o755);
        self.raw(header, b"")
    }

    pub fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(path, kind, 0);
        header.set_link_name_literal(target).unwrap();
        self.raw(header, b"")
    }

    pub fn node(self, kind: EntryType, path: &str) -> Self {
        let mut header = Self::header(path, kind, 0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        self.raw(header, b"")
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
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

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn config(layers: &[Vec<u8>]) -> Vec<u8> {
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

pub fn docker(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
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

pub struct Oci {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub index: serde_json::Value,
}

impl Oci {
    pub fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> serde_json::Value {
        let (digest, size) = (sha(&bytes), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// `stored` are the layers as they are compressed.
    pub fn new(name: &str, layers: &[Vec<u8>], stored: &[(&str, Vec<u8>)]) -> Self {
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

    pub fn tar(&self) -> Vec<u8> {
        let mut tar = Tar::default()
            .file("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#)
            .file("index.json", self.index.to_string().as_bytes());
        for (digest, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/sha256/{}", &digest[7..]), bytes);
        }
        tar.end()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A store in a directory of its own, with something beside it that nothing may touch.
pub struct Fixture {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "untouched").unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Loads one image with one layer, and says where it was unpacked.
    pub fn layer(&self, tar: Tar) -> Result<PathBuf, ImageError> {
        self.store.load(docker("x:1", &[tar.end()]).as_slice())?;
        let image = self.store.find(&"x:1".parse().unwrap())?.unwrap();
        Ok(image.layers.last().unwrap().clone())
    }

    /// The layer is refused, and nothing of it stays.
    pub fn refuse(&self, tar: Tar) -> LayerFault {
        let error = self.layer(tar).expect_err("the layer is bad");
        self.assert_clean();
        match error {
            ImageError::Layer { source, .. } => source,
            other => panic!("{other:?}"),
        }
    }

    pub fn assert_clean(&self) {
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

pub fn getxattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 256];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
    value.truncate(len);
    value
}
