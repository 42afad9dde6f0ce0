//! Volumes: what is kept of them, and who uses them. The decisions are in `apply`.

use std::collections::BTreeMap;

use godwit_types::{HostName, VolumeId, VolumeMount, VolumeName, VolumeView};
use serde::{Deserialize, Serialize};

use crate::state::{Container, State};

/// Data that outlives its containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: VolumeName,
    /// Another one for each that had the name: a late command finds nothing.
    pub id: VolumeId,
    /// Where its data is. None: it was never used.
    pub host: Option<HostName>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub anonymous: bool,
    pub created_ms: u64,
    /// Its data is to be removed, and then it is gone.
    #[serde(default)]
    pub removing: bool,
}

impl Container {
    /// The volumes that it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &VolumeMount> {
        self.spec.options.storage.volumes()
    }

    pub fn uses(&self, volume: &VolumeName) -> bool {
        self.volumes().any(|mount| mount.name == *volume)
    }
}

/// Every container that mounts it, whether it runs or not.
pub fn users<'a>(
    state: &'a State,
    volume: &'a VolumeName,
) -> impl Iterator<Item = &'a Container> + 'a {
    let containers = state.containers.values();
    containers.filter(move |container| container.uses(volume))
}

pub fn volume_view(state: &State, volume: &Volume) -> VolumeView {
    VolumeView {
        name: volume.name.clone(),
        id: volume.id.clone(),
        host: volume.host.clone(),
        labels: volume.labels.clone(),
        anonymous: volume.anonymous,
        created_ms: volume.created_ms,
        containers: users(state, &volume.name)
            .map(|container| container.spec.name.clone())
            .collect(),
        removing: volume.removing,
    }
}

/// What must hold: the data is where its containers are.
pub(crate) fn check(state: &State) -> Result<(), String> {
    for (name, volume) in &state.volumes {
        if *name != volume.name {
            return Err(format!("volume `{name}` is filed under another name"));
        }
        let host = volume.host.as_ref();
        if host.is_some_and(|host| !state.hosts.contains_key(host)) {
            return Err(format!("volume `{name}` is on an unknown host"));
        }
        for user in users(state, name) {
            if Some(&user.host) != host || volume.removing {
                return Err(format!("volume `{name}` is not where its container is"));
            }
        }
    }
    for container in state.containers.values() {
        for mount in container.volumes() {
            let volume = state.volumes.get(&mount.name);
            if volume.is_none_or(|volume| Some(&volume.id) != mount.id.as_ref()) {
                return Err(format!("{} mounts a volume that is not", mount.name));
            }
        }
    }
    Ok(())
}
