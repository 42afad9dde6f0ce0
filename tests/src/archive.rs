//! A small image around one program of this build: a docker-archive with the program, the shared
//! libraries it needs, and a few files.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::command::sh;

/// Writes an image `name` with `program` as `/bin/<file name>`.
pub fn write(path: &Path, name: &str, program: &Path) -> Result<()> {
    let archive = of_layer(name, &layer(program)?)?;
    fs::write(path, archive).with_context(|| path.display().to_string())
}

/// An image of one layer, whatever is in that.
pub fn of_layer(name: &str, layer: &[u8]) -> Result<Vec<u8>> {
    let config = serde_json::json!({
        "Env": ["PATH=/bin"], "Cmd": ["/bin/godwit-workload"], "WorkingDir": "/"});
    configured(name, layer, &config)
}

/// Writes the image of [`write`] with more in its configuration.
pub fn write_configured(
    path: &Path,
    name: &str,
    program: &Path,
    config: &serde_json::Value,
) -> Result<()> {
    let archive = configured(name, &layer(program)?, config)?;
    fs::write(path, archive).with_context(|| path.display().to_string())
}

fn configured(name: &str, layer: &[u8], run: &serde_json::Value) -> Result<Vec<u8>> {
    let diff_id = format!("sha256:{}", hex::encode(Sha256::digest(layer)));
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "godwit tests"}],
    }))?;
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let manifest = serde_json::to_vec(&serde_json::json!([
        {"Config": config_name, "RepoTags": [format!("{name}:latest")], "Layers": ["layer.tar"]}
    ]))?;
    let mut archive = Builder::new(Vec::new());
    for (name, bytes) in [
        (config_name.as_str(), config.as_slice()),
        ("layer.tar", layer),
        ("manifest.json", &manifest),
    ] {
        file(&mut archive, name, bytes, 0o644)?;
    }
    Ok(archive.into_inner()?)
}

/// The tar of an image around a program.
pub fn layer(program: &Path) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for (name, mode) in [
        ("bin/", 0o755),
        ("etc/", 0o755),
        ("tmp/", 0o1777),
        ("data/", 0o777),
        ("lib/", 0o755),
    ] {
        let mut header = header(EntryType::Directory, 0, mode);
        layer.append_data(&mut header, name, &[][..])?;
    }
    file(
        &mut layer,
        "etc/passwd",
        b"root:x:0:0::/:/bin/sh\nanna:x:1001:1001::/:/bin/sh\nben:x:1002:1002::/:/bin/sh\n",
        0o644,
    )?;
    let program_name = program
        .file_name()
        .context("program name")?
        .to_string_lossy();
    file(
        &mut layer,
        &format!("bin/{program_name}"),
        &fs::read(program)?,
        0o755,
    )?;
    for library in libraries(program)? {
        let name = library.trim_start_matches('/');
        file(&mut layer, name, &fs::read(&library)?, 0o755)?;
    }
    Ok(layer.into_inner()?)
}

/// The shared libraries of a program, the loader included, by their absolute paths.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let listed = sh(&format!("ldd {}", program.display()))?;
    Ok(listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned)
        .collect())
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn file(archive: &mut Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let mut header = header(EntryType::Regular, bytes.len() as u64, mode);
    Ok(archive.append_data(&mut header, name, bytes)?)
}
