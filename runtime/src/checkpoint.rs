//! A checkpoint as files: what is sent from the source and received at the destination.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// One file to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointFile {
    /// What it is called at the destination: `criu/pages-1.img`, `rootfs`, `log`.
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
}

/// Where received files go. Names come from the peer and are checked.
#[derive(Debug, Clone)]
pub struct Incoming {
    dir: PathBuf,
}

impl Incoming {
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Makes an empty file of this name, or an error when the name leads anywhere else.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let path = self.path(name)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // The other images are small, and in memory.
        let path = match name.strip_prefix("criu/") {
            Some(pages) if pages.starts_with("pages-") => {
                match symlink(Path::new("..").join(pages), &path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => self.dir.join(pages),
                }
            }
            _ => path,
        };
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    /// Removes a file that did not arrive whole. Not there is fine.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if !is_name(name) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "checkpoint file name `{}` is not valid",
                    name.escape_debug()
                ),
            ));
        }
        Ok(self.dir.join(name))
    }
}

/// At most one folder, and no part that is hidden, empty or a way up.
fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        (1..=128).contains(&part.len())
            && part.as_bytes()[0].is_ascii_alphanumeric()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let mut parts = name.split('/');
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    first.is_some_and(part) && second.is_none_or(part) && third.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_a_peer_stays_in_its_folder() {
        for good in ["rootfs", "criu/pages-1.img", "criu/tmpfs-dev-73.tar.gz.img"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "criu/..",
            "../x",
            "a/b/c",
            "criu/",
            ".x",
            "a\0b",
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
