//! Ports of hosts: one leads to one container.

use godwit_types::{ContainerName, HostName, NetworkMode, Published, Refusal, Status};

use crate::{
    command::NewContainer,
    state::{Container, State},
};

/// Whether a new container can have what it asks of its host's network.
pub(super) fn check_new(state: &State, new: &NewContainer) -> Result<(), Refusal> {
    let ports = &new.options.ports;
    let invalid = |(what, problem)| Refusal::Invalid { what, problem };
    ports.check().map_err(invalid)?;
    if let NetworkMode::Container { container, name } = &ports.mode {
        let gone = || Refusal::UnknownContainer {
            name: name.to_string(),
        };
        let other = state.containers.get(container).ok_or_else(gone)?;
        super::container::settled(state, container)?;
        if other.status != Status::Running {
            return Err(Refusal::NotRunning {
                name: other.spec.name.clone(),
                status: other.status.to_string(),
            });
        }
        if other.host != new.host {
            return Err(Refusal::NetworkElsewhere {
                name: other.spec.name.clone(),
                host: other.host.clone(),
                wanted: new.host.clone(),
            });
        }
    }
    match taken(state, &ports.published, &new.host, None) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

/// Who has one of these ports on a host, or will have it there.
pub(crate) fn taken(
    state: &State,
    wanted: &[Published],
    host: &HostName,
    except: Option<&ContainerName>,
) -> Option<Refusal> {
    let others = state.containers.values().filter(|container| {
        Some(&container.spec.name) != except
            && holds(container)
            && will_be_on(state, container, host)
    });
    for other in others {
        for port in wanted {
            let published = &other.spec.options.ports.published;
            if published.iter().any(|held| held.collides(port)) {
                return Some(Refusal::PortInUse {
                    port: port.to_string(),
                    host: host.clone(),
                    name: other.spec.name.clone(),
                });
            }
        }
    }
    None
}

/// One that has ended holds no port.
fn holds(container: &Container) -> bool {
    matches!(container.status, Status::Creating | Status::Running)
}

fn will_be_on(state: &State, container: &Container, host: &HostName) -> bool {
    let migration = container.migration.as_ref();
    let to = migration.and_then(|id| Some(&state.migrations.get(id)?.to));
    container.host == *host || to == Some(host)
}
