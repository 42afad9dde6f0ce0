//! What is kept on one host: containers that share a volume.

use godwit_types::Refusal;

use crate::{
    state::{Container, State},
    volume::users,
};

/// Why this container can't leave another one. None: nothing holds it.
pub fn other(state: &State, container: &Container) -> Option<Refusal> {
    container.volumes().find_map(|mount| {
        let other = users(state, &mount.name).find(|user| user.id != container.id)?;
        Some(Refusal::VolumeShared {
            name: container.spec.name.clone(),
            volume: mount.name.clone(),
            other: other.spec.name.clone(),
        })
    })
}
