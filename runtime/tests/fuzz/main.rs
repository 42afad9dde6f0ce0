//! Random bytes, and bytes that were nearly right, for everything that reads what an image brings:
//! reference, manifest, configuration, layer, archive. Runs on the stable toolchain: a corpus in the
//! tree (`corpus/TARGET/*`) and mutations of it, by a seed that is printed.
//!
//! As a test each target has a second; `GODWIT_FUZZ_SECONDS` gives it longer. `cargo xtask fuzz
//! --quick` gives each a minute. What is looked for is a panic, an overflow, memory without a limit
//! and anything outside of the store.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use godwit_runtime::image::{ImageError, Store, manifest::Manifest};
use godwit_types::{ImageName, ImageReference};
use sha2::{Digest, Sha256};

/// Small, and good enough to choose bytes with.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.join(target)).unwrap() {
        found.push(fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(!found.is_empty(), "no corpus for {target}");
    found
}

/// A few changes: bytes, runs, numbers at their limits, pieces of another input.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(8) {
            0 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.next() as u8),
            4 => {
                let odd: [&[u8]; 8] = [
                    b"\0",
                    b"\n",
                    b"../",
                    b"/",
                    b"18446744073709551615",
                    b"-1",
                    b"\xff\xff",
                    b".wh..wh..opq",
                ];
                let piece = odd[random.below(odd.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from + 1);
                let piece = other[from..to].to_vec();
                let end = (at + piece.len()).min(bytes.len());
                bytes.splice(at..end, piece);
            }
            6 => {
                let end = at + random.below(bytes.len() - at + 1);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let end = at + random.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
        }
        bytes.truncate(1 << 20);
    }
    bytes
}

fn fuzz(target: &str, mut one: impl FnMut(&[u8])) {
    let seconds = env::var("GODWIT_FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = env::var("GODWIT_FUZZ_SEED").ok();
    let seed = seed.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64) | 1
    });
    println!("{target}: GODWIT_FUZZ_SEED={seed}");
    let corpus = corpus(target);
    // What was found once is looked at first.
    corpus.iter().for_each(|bytes| one(bytes));
    let mut random = Random(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0u64;
    while Instant::now() < end || count < 100 {
        one(&mutated(&mut random, &corpus));
        count += 1;
    }
    println!("{target}: {count} inputs");
}

#[test]
fn any_reference_is_understood_or_refused() {
    fuzz("reference", |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(reference) = text.parse::<ImageReference>() {
            let shown = reference.to_string();
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            let again: ImageReference = shown.parse().expect("what is shown is understood");
            assert_eq!(again.to_string(), shown);
        }
        if let Ok(name) = text.parse::<ImageName>() {
            let mut parts = name.as_str().split('/');
            assert!(parts.all(|part| !part.starts_with('.')), "{name}");
        }
    });
}

#[test]
fn any_manifest_is_understood_or_refused() {
    fuzz("manifest", |bytes| {
        if let Err(error) = Manifest::parse(None, bytes) {
            let text = error.to_string();
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let called = "application/vnd.oci.image.manifest.v1+json";
        if let Ok(Manifest::Image(parts)) = Manifest::parse(Some(called), bytes) {
            assert!((1..=127).contains(&parts.layers.len()));
        }
    });
}

struct Scene {
    dir: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("outside"), "untouched").unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// Whatever was loaded, nothing is outside, and what failed left nothing.
    fn load(&self, archive: &[u8]) -> Result<(), ImageError> {
        let loaded = self.store.load(archive).map(drop);
        let outside: PathBuf = self.dir.path().join("outside");
        assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
        let tmp = self.dir.path().join("store/tmp");
        assert_eq!(fs::read_dir(tmp).unwrap().count(), 0);
        self.store.prune(true, || Ok(Default::default())).unwrap();
        let layers = self.dir.path().join("store/layers");
        assert_eq!(fs::read_dir(layers).unwrap().count(), 0);
        loaded
    }
}

fn archive(config: &[u8], layer: &[u8]) -> Vec<u8> {
    let manifest = br#"[{"Config":"c","RepoTags":["x:1"],"Layers":["l"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [("c", config), ("l", layer), ("manifest.json", manifest)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, name, bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn any_layer_is_unpacked_within_its_store_or_refused() {
    let scene = Scene::new();
    fuzz("layer", |bytes| {
        let diff_id = hex::encode(Sha256::digest(bytes));
        let config = format!(
            r#"{{"config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{diff_id}"]}}}}"#
        );
        let _ = scene.load(&archive(config.as_bytes(), bytes));
    });
}

#[test]
fn any_configuration_is_understood_or_refused() {
    let scene = Scene::new();
    fuzz("config", |bytes| {
        let _ = scene.load(&archive(bytes, &[0; 1024]));
    });
}

#[test]
fn any_archive_is_loaded_or_refused() {
    let scene = Scene::new();
    fuzz("archive", |bytes| {
        let _ = scene.load(bytes);
    });
}
