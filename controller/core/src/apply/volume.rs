//! Volumes: made on first use or by themselves, moved with their container, removed.
//!
//! A volume is on one host. So containers that share one are on one host, and none of them moves.

use std::collections::BTreeMap;

use godwit_types::{
    ContainerId, ContainerSpec, HostName, MountSource, Refusal, StorageOptions, VolumeId,
    VolumeName,
};

use super::{Applied, container::settled};
use crate::{
    command::NewContainer,
    state::State,
    together,
    volume::{Volume, users},
};

/// Whether a new container can have its volumes on its host. Nothing is taken yet.
pub(super) fn check_new(state: &State, new: &NewContainer) -> Result<(), Refusal> {
    let storage = &new.options.storage;
    let invalid = |(what, problem)| Refusal::Invalid { what, problem };
    storage.check().map_err(invalid)?;
    for mount in &storage.mounts {
        if let MountSource::Anonymous { .. } = mount.source {
            return Err(invalid((
                mount.destination.clone(),
                "its volume has no name yet".to_owned(),
            )));
        }
    }
    for mount in storage.volumes() {
        let Some(volume) = state.volumes.get(&mount.name) else {
            if mount.id.is_none() {
                let problem = "it has no id yet".to_owned();
                return Err(invalid((mount.name.to_string(), problem)));
            }
            continue;
        };
        if volume.removing {
            return Err(Refusal::VolumeGoing {
                volume: volume.name.clone(),
            });
        }
        if let Some(host) = volume.host.as_ref().filter(|host| **host != new.host) {
            return Err(Refusal::VolumeElsewhere {
                volume: volume.name.clone(),
                host: host.clone(),
                wanted: new.host.clone(),
            });
        }
        // One that is on its way can't be shared: it would not be known where.
        for user in users(state, &mount.name) {
            settled(state, &user.id)?;
        }
    }
    Ok(())
}

/// The volumes of a new container become its host's. Answers its mounts with the ids they have.
pub(super) fn take(
    state: &mut State,
    mut storage: StorageOptions,
    host: &HostName,
    created_ms: u64,
) -> StorageOptions {
    for mount in &mut storage.mounts {
        let MountSource::Volume(mount) = &mut mount.source else {
            continue;
        };
        let Some(id) = mount.id.clone().or_else(|| known(state, &mount.name)) else {
            continue;
        };
        let volume = state
            .volumes
            .entry(mount.name.clone())
            .or_insert_with(|| Volume {
                name: mount.name.clone(),
                id,
                host: None,
                labels: BTreeMap::new(),
                anonymous: mount.anonymous,
                created_ms,
                removing: false,
            });
        volume.host = Some(host.clone());
        mount.id = Some(volume.id.clone());
        mount.anonymous = volume.anonymous;
    }
    storage
}

fn known(state: &State, name: &VolumeName) -> Option<VolumeId> {
    state.volumes.get(name).map(|volume| volume.id.clone())
}

/// A volume by itself. One of this name is as good.
pub(super) fn create(state: &mut State, new: &Volume) -> Result<Applied, Refusal> {
    if let Some(host) = &new.host {
        if !state.hosts.contains_key(host) {
            return Err(Refusal::UnknownHost {
                host: host.to_string(),
            });
        }
        if state.is_draining(host) {
            return Err(Refusal::HostDraining { host: host.clone() });
        }
    }
    match state.volumes.get(&new.name) {
        Some(old) if old.removing => Err(Refusal::VolumeGoing {
            volume: new.name.clone(),
        }),
        Some(old) => match (&old.host, &new.host) {
            (Some(host), Some(wanted)) if host != wanted => Err(Refusal::VolumeElsewhere {
                volume: new.name.clone(),
                host: host.clone(),
                wanted: wanted.clone(),
            }),
            _ => Ok(Applied::Unchanged),
        },
        None => {
            state.volumes.insert(new.name.clone(), new.clone());
            Ok(Applied::Changed)
        }
    }
}

pub(super) fn begin_remove(state: &mut State, name: &VolumeName) -> Result<Applied, Refusal> {
    if let Some(user) = users(state, name).next() {
        return Err(Refusal::VolumeInUse {
            volume: name.clone(),
            name: user.spec.name.clone(),
        });
    }
    let volume = state
        .volumes
        .get_mut(name)
        .ok_or_else(|| Refusal::UnknownVolume {
            volume: name.to_string(),
        })?;
    if volume.removing {
        return Ok(Applied::Unchanged);
    }
    if volume.host.is_some() {
        volume.removing = true;
    } else {
        state.volumes.remove(name);
    }
    Ok(Applied::Changed)
}

/// Its host has nothing of it any more.
pub(super) fn removed(state: &mut State, name: &VolumeName, id: &VolumeId) -> Applied {
    let volume = state.volumes.get(name);
    if volume.is_some_and(|volume| volume.removing && volume.id == *id) {
        state.volumes.remove(name);
        Applied::Changed
    } else {
        Applied::Unchanged
    }
}

/// What keeps a container where it is, or from where it is to go.
pub(super) fn movable(state: &State, id: &ContainerId, to: &HostName) -> Result<(), Refusal> {
    let Some(container) = state.containers.get(id) else {
        return Ok(());
    };
    let held = together::other(state, container);
    match held.or_else(|| together::no_place(state, container, to)) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// A container changed its host, and its volumes with it.
pub(super) fn follow(state: &mut State, id: &ContainerId) {
    let Some(container) = state.containers.get(id) else {
        return;
    };
    let host = container.host.clone();
    for mount in container.spec.options.storage.volumes() {
        if let Some(volume) = state.volumes.get_mut(&mount.name) {
            volume.host = Some(host.clone());
        }
    }
}

/// A container is gone: those of its volumes that nobody named go, too, if nobody else uses them.
pub(super) fn leave(state: &mut State, spec: &ContainerSpec) {
    for mount in spec.options.storage.volumes() {
        if users(state, &mount.name).next().is_some() {
            continue;
        }
        if let Some(volume) = state.volumes.get_mut(&mount.name)
            && volume.anonymous
        {
            volume.removing = true;
        }
    }
}
