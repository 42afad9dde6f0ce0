//! Layers from what an instance changed: for `commit`, and for the steps of a build.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use godwit_types::{ContainerId, ContainerSpec, Digest, InstanceState};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{
    cgroup::Group,
    container::InstancePaths,
    image::author::{AuthorError, Authored, Clamp},
    rootfs::Rootfs,
};

/// In an instance's directory while it stands still for a commit.
const PAUSED: &str = "paused-for-commit";
/// What the runtime makes in a root that has it not, to mount over it.
const MOUNTED_OVER: [&str; 6] = [
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

/// Asks work on a thread of its own to end. Cloned: the same.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Runtime {
    /// Where builds keep what is theirs.
    pub fn builds(&self) -> PathBuf {
        self.inner.config.data.join("builds")
    }

    /// What an instance that has ended changed, as a layer above `below`. Its root is unmounted
    /// for good.
    pub async fn author_ended(
        &self,
        id: &ContainerId,
        below: Vec<Digest>,
        clamp: Clamp,
        interrupt: Interrupt,
    ) -> Result<Authored> {
        let rootfs = Rootfs::new(&self.paths(id).rootfs());
        let images = self.inner.images.clone();
        blocking(move || {
            rootfs.unmount()?;
            let upper = rootfs.upper();
            let layers = images.unpacked(&below).unwrap_or_default();
            drop_mounted_over(&upper, &layers).map_err(|source| RuntimeError::Io {
                path: upper.clone(),
                source,
            })?;
            Ok(images.author(&below, &upper, clamp, &|| !interrupt.is_set())?)
        })
        .await
    }

    /// What a container changed so far, as a layer above its image's. `pause`: it stands still
    /// meanwhile. Nobody else may change what the instance does until this returns: a commit that
    /// thaws must never thaw what a migration has frozen.
    pub async fn author_running(
        &self,
        id: &ContainerId,
        pause: bool,
    ) -> Result<(ContainerSpec, Authored)> {
        let running = match self.state(id).await? {
            InstanceState::Running { .. } => true,
            InstanceState::Exited { .. } => false,
            other => return Err(self.wrong_state(id, &other, "running or exited")),
        };
        let spec = self.spec(id)?;
        let below = self.inner.images.editable(&spec.image_id)?;
        let below = below.diff_ids().map_err(AuthorError::from)?;
        let (paths, cgroup) = (self.paths(id), self.cgroup(id));
        let images = self.inner.images.clone();
        let authored = blocking(move || {
            let held = match running && pause {
                true => Held::hold(&paths, &cgroup)?,
                false => None,
            };
            let upper = Rootfs::new(&paths.rootfs()).upper();
            let authored = images.author(&below, &upper, None, &|| true);
            let thawed = held.map_or(Ok(()), Held::release);
            let authored = authored?;
            thawed?;
            Ok(authored)
        })
        .await?;
        Ok((spec, authored))
    }

    /// Lets go of containers that stood still for a commit when the agent ended. Those that a
    /// migration has frozen stay frozen: that came after.
    pub async fn end_interrupted_commits(&self) -> Result<()> {
        for id in self.instances().await? {
            let mark = self.paths(&id).dir.join(PAUSED);
            if !mark.exists() {
                continue;
            }
            if let Ok(InstanceState::Running { .. }) = self.state(&id).await {
                tracing::info!(
                    container = id.short(),
                    "thawed after a commit that was cut off"
                );
                Group::new(&self.cgroup(&id))?.thaw()?;
            }
            fs::remove_file(&mark).map_err(|source| RuntimeError::Io { path: mark, source })?;
        }
        Ok(())
    }
}

/// A container that stands still.
struct Held {
    group: Group,
    mark: PathBuf,
}

impl Held {
    /// None: it stands still already, by somebody else's word.
    fn hold(paths: &InstancePaths, cgroup: &str) -> Result<Option<Self>> {
        let group = Group::new(cgroup)?;
        if group.is_frozen() {
            return Ok(None);
        }
        let mark = paths.dir.join(PAUSED);
        let written = fs::File::create(&mark).and_then(|file| file.sync_all());
        written.map_err(|source| RuntimeError::Io {
            path: mark.clone(),
            source,
        })?;
        let held = Self { group, mark };
        let frozen = held.group.freeze().and_then(|()| held.group.settle());
        match frozen {
            Ok(()) => Ok(Some(held)),
            Err(error) => {
                held.release()?;
                Err(error.into())
            }
        }
    }

    fn release(self) -> Result<()> {
        self.group.thaw()?;
        match fs::remove_file(&self.mark) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RuntimeError::Io {
                path: self.mark,
                source,
            }),
            _ => Ok(()),
        }
    }
}

/// Takes out of a writable layer what was made only to be mounted over: an empty file or
/// directory that no layer below has.
fn drop_mounted_over(upper: &Path, layers: &[PathBuf]) -> io::Result<()> {
    let below = |path: &str| {
        for layer in layers.iter().rev() {
            match fs::symlink_metadata(layer.join(path)) {
                Ok(found) => return !found.file_type().is_char_device(),
                Err(_) => continue,
            }
        }
        false
    };
    let gone = |result: io::Result<()>| match result {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    };
    for path in MOUNTED_OVER {
        // A symlink on the way would lead out.
        let parent = Path::new(path).parent().unwrap_or(Path::new(""));
        let real = fs::symlink_metadata(upper.join(parent)).is_ok_and(|found| found.is_dir());
        if !real || below(path) {
            continue;
        }
        let whole = upper.join(path);
        match fs::symlink_metadata(&whole) {
            Ok(found) if found.is_dir() => gone(fs::remove_dir(&whole))?,
            Ok(found) if found.is_file() && found.len() == 0 => gone(fs::remove_file(&whole))?,
            _ => {}
        }
    }
    let etc = upper.join("etc");
    if !below("etc") && fs::symlink_metadata(&etc).is_ok_and(|found| found.is_dir()) {
        gone(fs::remove_dir(&etc))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_made_to_be_mounted_over_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, layer) = (dir.path().join("upper"), dir.path().join("layer"));
        for path in ["upper/dev", "upper/proc/kept", "upper/etc", "layer/etc"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::write(upper.join("etc/hostname"), "mine").unwrap();
        fs::write(upper.join("etc/resolv.conf"), "").unwrap();
        fs::write(layer.join("etc/resolv.conf"), "x").unwrap();
        drop_mounted_over(&upper, std::slice::from_ref(&layer)).unwrap();
        assert!(!upper.join("dev").exists() && upper.join("proc/kept").exists());
        assert!(!upper.join("etc/hosts").exists() && upper.join("etc/hostname").exists());
        assert!(upper.join("etc/resolv.conf").exists());

        let bare = dir.path().join("bare");
        fs::create_dir_all(bare.join("etc")).unwrap();
        fs::write(bare.join("etc/hosts"), "").unwrap();
        drop_mounted_over(&bare, &[]).unwrap();
        assert!(!bare.join("etc").exists());
    }
}
