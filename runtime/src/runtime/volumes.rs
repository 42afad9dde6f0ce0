//! The volumes of a container over its life on this host.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use godwit_types::{ContainerId, ContainerSpec, MountSource, VolumeId};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{
    container::{missing_bind, mount_point},
    rootfs::size,
    volume::Volumes,
};

/// Each once, though it may be mounted twice.
pub(super) fn ids(spec: &ContainerSpec) -> BTreeSet<VolumeId> {
    let volumes = spec.options.storage.volumes();
    volumes.filter_map(|volume| volume.id.clone()).collect()
}

/// Before the first start: what is missing is made, and an empty volume gets what the image has
/// there. `root` is mounted.
pub(super) fn make(spec: &ContainerSpec, root: &Path, volumes: &Volumes) -> Result<()> {
    for mount in &spec.options.storage.mounts {
        let MountSource::Volume(volume) = &mount.source else {
            continue;
        };
        let Some(id) = &volume.id else { continue };
        let below = mount_point(root, &mount.destination);
        let image = root.join(below.trim_start_matches('/'));
        let copied = !volume.no_copy && is_directory(&image);
        volumes.ensure(id, copied.then_some(image.as_path()))?;
    }
    Ok(())
}

/// The path is one that was resolved, so a link at its end was not there.
fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

/// Bytes on disk of all of them.
pub(super) fn bytes(spec: &ContainerSpec, volumes: &Volumes) -> Result<u64> {
    let mut bytes = 0;
    for id in ids(spec) {
        bytes += size(&volumes.data(&id))?;
    }
    Ok(bytes)
}

impl Runtime {
    /// What a container wants of this host besides its image.
    pub(super) fn check_binds(&self, spec: &ContainerSpec) -> Result<()> {
        match missing_bind(spec) {
            Some(path) => Err(RuntimeError::NoBindSource(path)),
            None => Ok(()),
        }
    }

    /// Its volumes and where their data is.
    pub(super) fn volumes_of(&self, id: &ContainerId) -> Result<Vec<(VolumeId, PathBuf)>> {
        let ids = ids(&self.spec(id)?).into_iter();
        let volumes = ids.map(|id| {
            let data = self.inner.volumes.data(&id);
            (id, data)
        });
        Ok(volumes.collect())
    }

    /// Its volumes are about to come here with it.
    pub(super) async fn expect_volumes(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
    ) -> Result<()> {
        let (id, wanted) = (id.clone(), ids(spec));
        self.with_volumes(move |volumes| {
            for volume in &wanted {
                volumes.expect(volume, &id)?;
            }
            Ok(())
        })
        .await
    }

    /// It runs here, and its volumes are this host's.
    pub(super) async fn volumes_arrived(&self, id: &ContainerId) {
        let Ok(spec) = self.spec(id) else { return };
        let wanted = ids(&spec);
        let kept = self.with_volumes(move |volumes| {
            for volume in &wanted {
                volumes.arrived(volume)?;
            }
            Ok(())
        });
        if let Err(error) = kept.await {
            // Nothing discards what runs.
            tracing::warn!(container = id.short(), %error, "volume still marked as arriving");
        }
    }

    /// Removes those that came here ahead of it.
    pub(super) async fn discard_volumes(&self, id: &ContainerId) -> Result<()> {
        let Ok(spec) = self.spec(id) else {
            return Ok(());
        };
        let (id, wanted) = (id.clone(), ids(&spec));
        self.with_volumes(move |volumes| {
            for volume in &wanted {
                volumes.discard(volume, &id)?;
            }
            Ok(())
        })
        .await
    }

    /// It has left, and its volumes with it.
    pub(super) async fn release_volumes(&self, id: &ContainerId) -> Result<()> {
        let Ok(spec) = self.spec(id) else {
            return Ok(());
        };
        let wanted = ids(&spec);
        self.with_volumes(move |volumes| {
            for volume in &wanted {
                volumes.remove(volume)?;
            }
            Ok(())
        })
        .await
    }

    /// Ends what is here whatever it does, with its volumes: the container is elsewhere, and what
    /// is in them there is what counts.
    pub async fn remove_with_volumes(&self, id: &ContainerId) -> Result<()> {
        let wanted = self.spec(id).map(|spec| ids(&spec)).unwrap_or_default();
        self.remove(id, true).await?;
        self.with_volumes(move |volumes| {
            for volume in &wanted {
                volumes.remove(volume)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes the data of one. Harmless when it is gone.
    pub async fn remove_volume(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.with_volumes(move |volumes| Ok(volumes.remove(&id)?))
            .await
    }

    async fn with_volumes(
        &self,
        work: impl FnOnce(&Volumes) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let volumes = self.inner.volumes.clone();
        blocking(move || work(&volumes)).await
    }
}
