//! What a user has mounted into a container: volumes, paths of the host, memory.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use godwit_types::{ContainerSpec, MountSource};
use serde_json::{Value, json};

use crate::{criu::Bind, volume::Volumes};

/// Volumes and paths of this host, by destination.
pub fn host_mounts(spec: &ContainerSpec, volumes: &Volumes) -> Vec<Bind> {
    let mounts = spec.options.storage.mounts.iter();
    mounts
        .filter_map(|mount| {
            let source = match &mount.source {
                MountSource::Volume(volume) => {
                    volumes.data(volume.id.as_ref()?).display().to_string()
                }
                MountSource::Bind { path } => path.clone(),
                MountSource::Anonymous { .. } | MountSource::Tmpfs { .. } => return None,
            };
            Some(Bind {
                destination: mount.destination.clone(),
                source,
            })
        })
        .collect()
}

/// The bundle's entries.
pub fn oci_mounts(spec: &ContainerSpec, volumes: &Volumes) -> Vec<Value> {
    let mounts = spec.options.storage.mounts.iter();
    mounts
        .filter_map(|mount| {
            let access = if mount.read_only { "ro" } else { "rw" };
            let destination = &mount.destination;
            Some(match &mount.source {
                MountSource::Volume(volume) => json!({
                    "destination": destination, "type": "bind",
                    "source": volumes.data(volume.id.as_ref()?),
                    "options": ["bind", "rprivate", access]}),
                MountSource::Bind { path } => json!({
                    "destination": destination, "type": "bind", "source": path,
                    "options": ["rbind", "rprivate", access]}),
                MountSource::Tmpfs { size, mode } => {
                    let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
                    options.extend(["noexec".to_owned(), access.to_owned()]);
                    options.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
                    options.extend(size.map(|bytes| format!("size={bytes}")));
                    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs",
                           "options": options})
                }
                MountSource::Anonymous { .. } => return None,
            })
        })
        .collect()
}

/// The first path of the host that a container wants and that is not there.
pub fn missing_bind(spec: &ContainerSpec) -> Option<String> {
    let mounts = spec.options.storage.mounts.iter();
    mounts
        .filter_map(|mount| match &mount.source {
            MountSource::Bind { path } => Some(path),
            _ => None,
        })
        .find(|path| fs::metadata(path).is_err())
        .cloned()
}

/// Where a destination lies once the root's symbolic links are followed, as the kernel names it.
/// What is not there, such as a place in another mount, is taken as it is.
pub fn mount_point(root: &Path, destination: &str) -> String {
    resolve(root, destination).unwrap_or_else(|_| destination.to_owned())
}

fn resolve(root: &Path, destination: &str) -> io::Result<String> {
    let root = root.canonicalize()?;
    let found = pathrs::Root::open(&root)
        .and_then(|root| root.resolve(destination))
        .map_err(io::Error::other)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", found.as_fd().as_raw_fd()))?;
    let inside = path.strip_prefix(&root).map_err(io::Error::other)?;
    Ok(format!("/{}", inside.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_where_the_links_of_the_root_lead() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/x")).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        std::os::unix::fs::symlink("/run", root.path().join("var/run")).unwrap();
        assert_eq!(mount_point(root.path(), "/var/run/x"), "/run/x");
        assert_eq!(mount_point(root.path(), "/run/x"), "/run/x");
        assert_eq!(mount_point(root.path(), "/not/there"), "/not/there");
    }
}
