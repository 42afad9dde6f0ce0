//! What a container changed of its image: its writable layer, held against the layers below.
//!
//! A layer comes from elsewhere: each part of a path is looked at by itself, and a link is never
//! followed.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use godwit_types::{Change, ChangeKind};

use crate::rootfs::xattr::OPAQUE;

/// More are never told.
const MOST: usize = 100_000;

/// `upper`: the writable layer; `layers`: those below, the lowest first.
pub fn changes(upper: &Path, layers: &[PathBuf]) -> io::Result<Vec<Change>> {
    let mut found = Vec::new();
    walk(upper, Path::new(""), layers, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(upper: &Path, dir: &Path, layers: &[PathBuf], found: &mut Vec<Change>) -> io::Result<()> {
    for entry in fs::read_dir(upper.join(dir))? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        // One that went away meanwhile is no change any more.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let below = is_below(layers, &path);
        let kind = match (is_whiteout(&metadata), below) {
            (true, true) => ChangeKind::Deleted,
            // Of what was made and removed again.
            (true, false) => continue,
            (false, true) => ChangeKind::Changed,
            (false, false) => ChangeKind::Added,
        };
        if found.len() >= MOST {
            return Ok(());
        }
        found.push(Change {
            kind,
            path: format!("/{}", path.to_string_lossy()),
        });
        if metadata.is_dir() {
            walk(upper, &path, layers, found)?;
        }
    }
    Ok(())
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether the layers together have something of this path.
fn is_below(layers: &[PathBuf], path: &Path) -> bool {
    for layer in layers.iter().rev() {
        match look(layer, path) {
            Seen::There => return true,
            Seen::Hidden => return false,
            Seen::NotHere => {}
        }
    }
    false
}

enum Seen {
    There,
    /// It is not there, nor is anything of the layers below.
    Hidden,
    NotHere,
}

fn look(layer: &Path, path: &Path) -> Seen {
    let mut at = layer.to_owned();
    let mut opaque = false;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let Ok(metadata) = fs::symlink_metadata(&at) else {
            return if opaque { Seen::Hidden } else { Seen::NotHere };
        };
        if is_whiteout(&metadata) {
            return Seen::Hidden;
        }
        if parts.peek().is_some() {
            if !metadata.is_dir() {
                return Seen::Hidden;
            }
            opaque |= is_opaque(&at);
        }
    }
    Seen::There
}

fn is_opaque(dir: &Path) -> bool {
    let mut value = [0; 1];
    let name = std::ffi::CString::new(OPAQUE).unwrap_or_default();
    matches!(
        rustix::fs::lgetxattr(dir, name.as_c_str(), &mut value),
        Ok(1)
    ) && value == [b'y']
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_what_is_other_are_told_apart_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for path in ["low/etc/passwd", "low/bin/sh", "mid/etc/hosts"] {
            make(path);
        }
        // A layer that would lead out of itself.
        std::os::unix::fs::symlink("/etc", dir.path().join("low/trap")).unwrap();
        for path in ["up/etc/passwd", "up/etc/new/file", "up/trap/passwd"] {
            make(path);
        }
        let layers = [dir.path().join("low"), dir.path().join("mid")];
        let found = changes(&dir.path().join("up"), &layers).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|change| (change.kind, change.path.as_str()))
            .collect();
        use ChangeKind::{Added, Changed};
        assert_eq!(
            found,
            [
                (Changed, "/etc"),
                (Added, "/etc/new"),
                (Added, "/etc/new/file"),
                (Changed, "/etc/passwd"),
                (Changed, "/trap"),
                (Added, "/trap/passwd"),
            ]
        );
    }
}
