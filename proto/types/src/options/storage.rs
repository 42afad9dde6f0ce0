//! What is mounted into a container.

use serde::{Deserialize, Serialize};

use crate::{VolumeId, VolumeName};

/// The most mounts of one container.
pub const MAX_MOUNTS: usize = 128;
const MAX_PATH: usize = 4095;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageOptions {
    /// By destination, once the container was accepted.
    pub mounts: Vec<Mount>,
    /// Asked for, and replaced by their mounts when the container is accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumesFrom>,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, in the container.
    pub destination: String,
    pub source: MountSource,
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MountSource {
    /// Made on first use.
    Volume(VolumeMount),
    /// A volume of its own, which gets a name when the container is accepted.
    Anonymous {
        #[serde(default)]
        no_copy: bool,
    },
    /// What is at this absolute path of whatever host the container is on.
    Bind { path: String },
    /// Memory. `size`: bytes at most; `mode`: of its root.
    Tmpfs {
        #[serde(default)]
        size: Option<u64>,
        #[serde(default)]
        mode: Option<u32>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    pub name: VolumeName,
    /// Which of those that had this name over time. None: not accepted yet.
    #[serde(default)]
    pub id: Option<VolumeId>,
    /// It goes with the container if that is asked for.
    #[serde(default)]
    pub anonymous: bool,
    /// What the image has there is not copied into an empty volume.
    #[serde(default)]
    pub no_copy: bool,
}

/// Every mount of another container but its tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Name, id, or the beginning of an id.
    pub container: String,
    #[serde(default)]
    pub read_only: bool,
}

impl StorageOptions {
    /// The volumes that are mounted, in the order of the mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeMount> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume(volume) => Some(volume),
            _ => None,
        })
    }

    /// The first thing that is not valid, and why.
    pub fn check(&self) -> Result<(), (String, String)> {
        if self.mounts.len() > MAX_MOUNTS {
            let what = format!("{} mounts", self.mounts.len());
            return Err((what, format!("a container has at most {MAX_MOUNTS}")));
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            let destination = &mount.destination;
            let refuse = |what: &str, problem: &str| Err((what.to_owned(), problem.to_owned()));
            if let Some(problem) = bad_path(destination) {
                return refuse(destination, problem);
            }
            if destination == "/" {
                return refuse(destination, "nothing is mounted over the root");
            }
            if below(destination, "/proc") {
                return refuse(destination, "nothing is mounted over `/proc`");
            }
            if let MountSource::Bind { path } = &mount.source
                && let Some(problem) = bad_path(path)
            {
                return refuse(path, problem);
            }
            let mut others = self.mounts[..index].iter();
            if others.any(|other| other.destination == *destination) {
                return refuse(destination, "it is the destination of two mounts");
            }
        }
        Ok(())
    }
}

fn below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Why a path can't be one end of a mount. Only the plain form of a path is taken, so that two
/// spellings of one place are the same text.
fn bad_path(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("it is no absolute path");
    }
    if path.len() > MAX_PATH {
        return Some("it is longer than 4095 bytes");
    }
    if path.chars().any(char::is_control) {
        return Some("it has control characters");
    }
    if *path != plain(path) {
        return Some("it has parts that are empty, `.` or `..`");
    }
    None
}

/// A path without empty parts, `.` and `..`, as text.
pub fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mounts: &[(&str, &str)]) -> StorageOptions {
        let mounts = mounts.iter().map(|(source, destination)| Mount {
            destination: (*destination).to_owned(),
            source: MountSource::Bind {
                path: (*source).to_owned(),
            },
            read_only: false,
        });
        StorageOptions {
            mounts: mounts.collect(),
            volumes_from: Vec::new(),
        }
    }

    #[test]
    fn mounts_that_could_surprise_are_refused_by_name() {
        options(&[("/a", "/b"), ("/a", "/b/c")]).check().unwrap();
        for (source, destination, what) in [
            ("a", "/b", "a"),
            ("/a", "b", "b"),
            ("/a/../b", "/b", "/a/../b"),
            ("/a", "/", "/"),
            ("/a", "/proc/sys", "/proc/sys"),
            ("/a", "/b\n", "/b\n"),
            ("/a", "/b/", "/b/"),
        ] {
            let refused = options(&[(source, destination)]).check().unwrap_err();
            assert_eq!(refused.0, what);
        }
        let twice = options(&[("/a", "/x"), ("/b", "/x")]).check().unwrap_err();
        assert!(twice.1.contains("two mounts"));
    }

    #[test]
    fn a_path_is_made_plain() {
        for (path, made) in [("//a/./b/", "/a/b"), ("/../a", "/a"), ("/", "/")] {
            assert_eq!(plain(path), made);
        }
    }
}
