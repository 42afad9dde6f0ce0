//! Images and the containers that use them: what may be removed, and what all of it takes.

use std::{fs, io};

use godwit_types::{ByteSize, ContainerId, StoreUsage};

use super::{Result, Runtime, RuntimeError, blocking};
use crate::{
    image::{Freed, Uses},
    rootfs::{Rootfs, size},
};

impl Runtime {
    /// Images by the containers that have an instance here, in whatever state.
    fn uses(&self) -> Result<Uses> {
        let mut uses = Uses::new();
        let dir = self.inner.config.data.join("containers");
        let failed = |source| RuntimeError::Io {
            path: dir.clone(),
            source,
        };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(|name| ContainerId::new(name).ok()) else {
                continue;
            };
            match self.spec(&id) {
                Ok(spec) => uses
                    .entry(spec.image_id)
                    .or_default()
                    .push(spec.name.to_string()),
                // Made a moment ago, or half removed: nothing of it is mounted.
                Err(RuntimeError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(uses)
    }

    /// Removes an image, or one of its names. Refused while a container here uses it.
    pub async fn remove_image(&self, image: &str, force: bool) -> Result<Freed> {
        let (runtime, image) = (self.clone(), image.to_owned());
        blocking(move || {
            let uses = || runtime.uses().map_err(Into::into);
            Ok(runtime.images().remove(&image, force, uses)?)
        })
        .await
    }

    /// Removes images that nothing here uses; see [`crate::image::Store::prune`].
    pub async fn prune_images(&self, all: bool) -> Result<Freed> {
        let runtime = self.clone();
        blocking(move || {
            let uses = || runtime.uses().map_err(Into::into);
            Ok(runtime.images().prune(all, uses)?)
        })
        .await
    }

    /// What images and the writable layers of containers take. `running`: those that run.
    pub async fn store_usage(&self, running: Vec<ContainerId>) -> Result<StoreUsage> {
        let runtime = self.clone();
        blocking(move || {
            let mut usage = runtime.images().usage(&runtime.uses()?)?;
            let dir = runtime.inner.config.data.join("containers");
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let Some(id) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| ContainerId::new(name).ok())
                else {
                    continue;
                };
                let rootfs = Rootfs::new(&runtime.paths(&id).rootfs());
                let written = size(&rootfs.upper())?;
                usage.containers += 1;
                usage.writable.0 += written;
                if running.contains(&id) {
                    usage.running += 1;
                } else {
                    usage.writable_reclaimable = ByteSize(usage.writable_reclaimable.0 + written);
                }
            }
            Ok(usage)
        })
        .await
    }
}
