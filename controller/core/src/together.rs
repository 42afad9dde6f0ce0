//! What is kept where it is: containers that share a volume or a network namespace are kept on one
//! host, and one that has its host's network on that one.

use godwit_types::{HostName, NetworkMode, Refusal};

use crate::{
    apply::taken,
    state::{Container, State},
    volume::users,
};

/// Why this container can't leave its host. None: nothing holds it.
pub fn other(state: &State, container: &Container) -> Option<Refusal> {
    let name = || container.spec.name.clone();
    let mode = |container: &Container| container.spec.options.ports.mode.clone();
    let shares = |other: &Container| Refusal::NetworkShared {
        name: name(),
        other: other.spec.name.clone(),
    };
    let volume = container.volumes().find_map(|mount| {
        let other = users(state, &mount.name).find(|user| user.id != container.id)?;
        Some(Refusal::VolumeShared {
            name: name(),
            volume: mount.name.clone(),
            other: other.spec.name.clone(),
        })
    });
    if volume.is_some() {
        return volume;
    }
    match mode(container) {
        NetworkMode::Host => {
            return Some(Refusal::HostNetwork {
                name: name(),
                host: container.host.clone(),
            });
        }
        // The other may be gone, and its namespace lives on with this one.
        NetworkMode::Container {
            container: id,
            name: other,
        } => {
            let other = match state.containers.get(&id) {
                Some(other) => other.spec.name.clone(),
                None => other,
            };
            return Some(Refusal::NetworkShared {
                name: name(),
                other,
            });
        }
        NetworkMode::Own => {}
    }
    let mut others = state.containers.values();
    let joined = others.find(|other| {
        matches!(mode(other), NetworkMode::Container { container: id, .. } if id == container.id)
    });
    joined.map(shares)
}

/// Why this host can't have the container as it can have others. None: nothing is taken.
pub fn no_place(state: &State, container: &Container, to: &HostName) -> Option<Refusal> {
    let published = &container.spec.options.ports.published;
    taken(state, published, to, Some(&container.spec.name))
}
