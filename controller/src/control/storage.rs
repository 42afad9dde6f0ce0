//! The mounts of a new container: what was asked for and what its image wants, with names and ids
//! for what has none yet, and the host that they bind it to.

use godwit_core::{State, find_container};
use godwit_types::{
    HostName, Mount, MountSource, Refusal, StorageOptions, VolumeMount, VolumeName, VolumesFrom,
    plain_path,
};

use crate::ids;

/// Every mount in full. `of_image`: where the image wants volumes.
pub fn complete(
    state: &State,
    asked: StorageOptions,
    of_image: &[String],
) -> Result<StorageOptions, Refusal> {
    let StorageOptions {
        mut mounts,
        volumes_from,
    } = asked;
    let has = |mounts: &[Mount], destination: &str| {
        mounts.iter().any(|mount| mount.destination == destination)
    };
    for from in volumes_from {
        for mount in of_other(state, &from)? {
            // What is said of this container itself comes first.
            if !has(&mounts, &mount.destination) {
                mounts.push(mount);
            }
        }
    }
    for path in of_image {
        let destination = plain_path(path);
        if !has(&mounts, &destination) {
            mounts.push(Mount {
                destination,
                source: MountSource::Anonymous { no_copy: false },
                read_only: false,
            });
        }
    }
    for mount in &mut mounts {
        match &mut mount.source {
            MountSource::Anonymous { no_copy } => {
                mount.source = MountSource::Volume(VolumeMount {
                    name: anonymous(),
                    id: Some(ids::volume_id()),
                    anonymous: true,
                    no_copy: *no_copy,
                });
            }
            // If there is one of this name, its own id takes the place of this.
            MountSource::Volume(volume) => {
                let known = state.volumes.get(&volume.name);
                volume.id = Some(known.map_or_else(ids::volume_id, |known| known.id.clone()));
                volume.anonymous = known.is_some_and(|known| known.anonymous);
            }
            MountSource::Bind { .. } | MountSource::Tmpfs { .. } => {}
        }
    }
    // What lies in another mount is mounted after it.
    mounts.sort_by(|a, b| {
        let depth = |mount: &Mount| mount.destination.matches('/').count();
        depth(a)
            .cmp(&depth(b))
            .then(a.destination.cmp(&b.destination))
    });
    let storage = StorageOptions {
        mounts,
        volumes_from: Vec::new(),
    };
    let invalid = |(what, problem)| Refusal::Invalid { what, problem };
    storage.check().map_err(invalid)?;
    Ok(storage)
}

fn of_other(state: &State, from: &VolumesFrom) -> Result<Vec<Mount>, Refusal> {
    let other = find_container(state, &from.container)?;
    let mounts = other.spec.options.storage.mounts.iter();
    let shared = mounts.filter(|mount| !matches!(mount.source, MountSource::Tmpfs { .. }));
    Ok(shared
        .cloned()
        .map(|mut mount| {
            mount.read_only |= from.read_only;
            mount
        })
        .collect())
}

/// Sixty-four digits, as Docker names them.
fn anonymous() -> VolumeName {
    let id = ids::container_id();
    VolumeName::new(id.as_str()).expect("an id of a container is a name of a volume")
}

/// The host that has a volume of it. None: any host will do.
pub fn host(state: &State, storage: &StorageOptions) -> Option<HostName> {
    storage
        .volumes()
        .find_map(|mount| state.volumes.get(&mount.name)?.host.clone())
}
