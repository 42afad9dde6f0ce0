//! The network of a new container: whose it is, and ports of the host for what has none yet.

use std::collections::BTreeSet;

use godwit_core::{DEFAULT_NETWORK, State, find_container};
use godwit_types::{HostName, NetworkMode, NetworkName, PortOptions, Protocol, Published, Refusal};

/// What is chosen where the user leaves it open: the same as Docker's.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49153..=65535;

/// What `--network` means.
pub fn network(state: &State, text: &str) -> Result<(Option<NetworkName>, NetworkMode), Refusal> {
    let named = |text: &str| {
        NetworkName::new(text).map_err(|reason| Refusal::Invalid {
            what: text.to_owned(),
            problem: reason.to_string(),
        })
    };
    if let Some(other) = text.strip_prefix("container:") {
        let other = find_container(state, other)?;
        let mode = NetworkMode::Container {
            container: other.id.clone(),
            name: other.spec.name.clone(),
        };
        return Ok((None, mode));
    }
    match text {
        "none" => Ok((None, NetworkMode::Own)),
        "host" => Ok((None, NetworkMode::Host)),
        "" | "bridge" => Ok((Some(named(DEFAULT_NETWORK)?), NetworkMode::Own)),
        text => Ok((Some(named(text)?), NetworkMode::Own)),
    }
}

/// Every published port with one of the host. `exposed`: what the image serves.
pub fn complete(
    state: &State,
    mut asked: PortOptions,
    mode: NetworkMode,
    has_network: bool,
    exposed: &[String],
) -> Result<PortOptions, Refusal> {
    if !has_network {
        if let (Some(port), NetworkMode::Own | NetworkMode::Container { .. }) =
            (asked.published.first(), &mode)
        {
            return Err(Refusal::Invalid {
                what: port.to_string(),
                problem: "a container without a network of its own publishes no port".to_owned(),
            });
        }
        // As with Docker: the host's ports are the container's own.
        asked.published.clear();
        asked.publish_all = false;
    }
    if asked.publish_all {
        for text in exposed {
            let Some(port) = of_image(text) else { continue };
            let mut published = asked.published.iter();
            let known =
                published.any(|p| (p.container, p.protocol) == (port.container, port.protocol));
            if !known {
                asked.published.push(port);
            }
        }
    }
    // On no host, so that it is the same wherever the container goes.
    let mut used: BTreeSet<u16> = state
        .containers
        .values()
        .flat_map(|container| &container.spec.options.ports.published)
        .chain(&asked.published)
        .map(|port| port.host)
        .collect();
    for port in asked.published.iter_mut().filter(|port| port.host == 0) {
        let free = EPHEMERAL.into_iter().find(|port| !used.contains(port));
        let Some(free) = free else {
            return Err(Refusal::Invalid {
                what: format!("{}/{}", port.container, port.protocol),
                problem: "no port from 49153 on is free".to_owned(),
            });
        };
        used.insert(free);
        port.host = free;
    }
    asked.mode = mode;
    let invalid = |(what, problem)| Refusal::Invalid { what, problem };
    asked.check().map_err(invalid)?;
    Ok(asked)
}

/// `80`, `80/tcp`, `53/udp`; what an image says beside these is not ours to judge.
fn of_image(text: &str) -> Option<Published> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Published {
        ip: None,
        host: 0,
        container: number.parse().ok().filter(|port| *port != 0)?,
        protocol,
    })
}

/// The host that the network binds it to. None: any host will do.
pub fn host(state: &State, ports: &PortOptions) -> Option<HostName> {
    match &ports.mode {
        NetworkMode::Container { container, .. } => {
            Some(state.containers.get(container)?.host.clone())
        }
        NetworkMode::Own | NetworkMode::Host => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_image_serves_gets_ports_of_its_own() {
        let asked = PortOptions {
            publish_all: true,
            ..PortOptions::default()
        };
        let exposed = ["80/tcp", "53/udp", "9/sctp", "x"].map(str::to_owned);
        let state = State::default();
        let found = complete(&state, asked, NetworkMode::Own, true, &exposed).unwrap();
        let ports: Vec<_> = found.published.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["49153/tcp", "49154/udp"]);
    }

    #[test]
    fn a_container_without_a_network_publishes_nothing() {
        let asked = PortOptions {
            published: vec![of_image("80/tcp").unwrap()],
            ..PortOptions::default()
        };
        let state = State::default();
        let refused = complete(&state, asked.clone(), NetworkMode::Own, false, &[]);
        assert!(refused.unwrap_err().to_string().contains("network"));
        let host = complete(&state, asked, NetworkMode::Host, false, &[]).unwrap();
        assert!(host.published.is_empty());
    }
}
