//! A file tree as text, for comparing two of them file by file.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Type, mode, owner, content and extended attributes of everything below `root`, by its path.
/// Paths in `skip` are left out with all that is in them; `.` is the
/// root itself, without what is in it.
pub fn read(root: &Path, skip: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    walk(root, "", skip, &mut found)?;
    Ok(found)
}

fn walk(
    root: &Path,
    below: &str,
    skip: &[&str],
    found: &mut BTreeMap<String, String>,
) -> Result<()> {
    let path = root.join(below);
    let name = if below.is_empty() { "." } else { below };
    let described = describe(&path).with_context(|| path.display().to_string())?;
    let is_directory = described.starts_with("directory");
    if !skip.contains(&name) {
        found.insert(name.to_owned(), described);
    }
    if !is_directory {
        return Ok(());
    }
    for entry in fs::read_dir(&path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let whole = match below {
            "" => name,
            below => format!("{below}/{name}"),
        };
        if !skip.contains(&whole.as_str()) {
            walk(root, &whole, skip, found)?;
        }
    }
    Ok(())
}

fn describe(path: &Path) -> Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("symlink to {}", fs::read_link(path)?.display())
    } else if kind.is_file() {
        let mut hash = Sha256::new();
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        format!("file {} {}", metadata.len(), hex::encode(hash.finalize()))
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {:x}", metadata.rdev())
    };
    let mut text = format!(
        "{what} {:o} {}:{}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid()
    );
    for (key, value) in xattrs(path)? {
        text.push_str(&format!(" {key}={}", hex::encode(value)));
    }
    Ok(text)
}

/// Those that an image can carry.
fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut keys = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut keys) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut found = BTreeMap::new();
    for key in keys[..length]
        .split(|b| *b == 0)
        .filter(|key| !key.is_empty())
    {
        let key = String::from_utf8_lossy(key).into_owned();
        if !key.starts_with("user.") && key != "security.capability" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, key.as_str(), &mut value)?;
        value.truncate(length);
        found.insert(key, value);
    }
    Ok(found)
}

/// The differences between two trees, a line each.
pub fn differences(
    ours: &BTreeMap<String, String>,
    theirs: &BTreeMap<String, String>,
) -> Vec<String> {
    let none = "nothing".to_owned();
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter_map(|path| {
            let (a, b) = (
                ours.get(path).unwrap_or(&none),
                theirs.get(path).unwrap_or(&none),
            );
            (a != b).then(|| format!("{path}: {a} | {b}"))
        })
        .collect()
}
