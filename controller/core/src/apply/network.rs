//! Networks and their addresses.

use std::{collections::BTreeMap, net::Ipv4Addr};

use godwit_types::{
    ContainerId, HostName, NetworkAttachment, NetworkName, NetworkSpec, Refusal, Subnet,
};

use super::Applied;
use crate::state::{DEFAULT_NETWORK, Network, State};

pub(super) fn create(
    state: &mut State,
    name: &NetworkName,
    subnet: Option<Subnet>,
) -> Result<Applied, Refusal> {
    if matches!(name.as_str(), "none" | "host" | "bridge" | "container") {
        return Err(Refusal::Invalid {
            what: name.to_string(),
            problem: "it is a word for another kind of network".to_owned(),
        });
    }
    if state.networks.contains_key(name) {
        return Err(Refusal::NetworkInUse {
            network: name.clone(),
        });
    }
    let subnet = match subnet {
        Some(subnet) => match overlapping(state, &subnet) {
            Some(network) => return Err(Refusal::SubnetOverlaps { subnet, network }),
            None => subnet,
        },
        None => free_subnet(state).ok_or_else(|| Refusal::NoFreeAddress {
            network: name.clone(),
        })?,
    };
    let vni = (1..1 << 24)
        .find(|vni| state.networks.values().all(|n| n.spec.vni != *vni))
        .ok_or_else(|| Refusal::NoFreeAddress {
            network: name.clone(),
        })?;
    let network = Network {
        spec: NetworkSpec {
            name: name.clone(),
            vni,
            subnet,
        },
        version: 1,
        addresses: BTreeMap::new(),
    };
    state.networks.insert(name.clone(), network);
    Ok(Applied::Changed)
}

pub(super) fn remove(state: &mut State, name: &NetworkName) -> Result<Applied, Refusal> {
    let network = state
        .networks
        .get(name)
        .ok_or_else(|| Refusal::UnknownNetwork {
            network: name.to_string(),
        })?;
    if name.as_str() == DEFAULT_NETWORK {
        return Err(Refusal::Invalid {
            what: name.to_string(),
            problem: "the network of containers that name none stays".to_owned(),
        });
    }
    let mut holders = network.addresses.values();
    if let Some(user) = holders.find_map(|id| state.containers.get(id)) {
        return Err(Refusal::NetworkUsed {
            network: name.clone(),
            name: user.spec.name.clone(),
        });
    }
    state.networks.remove(name);
    Ok(Applied::Changed)
}

fn overlapping(state: &State, subnet: &Subnet) -> Option<NetworkName> {
    let mut networks = state.networks.values();
    networks
        .find(|network| network.spec.subnet.overlaps(subnet))
        .map(|network| network.spec.name.clone())
}

fn free_subnet(state: &State) -> Option<Subnet> {
    (89..=255u8)
        .filter_map(|second| format!("10.{second}.0.0/16").parse().ok())
        .find(|subnet| overlapping(state, subnet).is_none())
}

/// The lowest free address; nothing is taken yet.
pub(super) fn free_address(
    state: &State,
    name: &NetworkName,
) -> Result<NetworkAttachment, Refusal> {
    let network = state
        .networks
        .get(name)
        .ok_or_else(|| Refusal::UnknownNetwork {
            network: name.to_string(),
        })?;
    let mut addresses = network.spec.subnet.hosts();
    let address = addresses
        .find(|address| !network.addresses.contains_key(address))
        .ok_or_else(|| Refusal::NoFreeAddress {
            network: name.clone(),
        })?;
    Ok(NetworkAttachment {
        network: network.spec.clone(),
        address,
    })
}

pub(super) fn take(state: &mut State, attachment: &NetworkAttachment, container: &ContainerId) {
    if let Some(network) = state.networks.get_mut(&attachment.network.name) {
        network
            .addresses
            .insert(attachment.address, container.clone());
        network.version += 1;
    }
}

pub(super) fn free(state: &mut State, name: &NetworkName, address: Ipv4Addr) {
    if let Some(network) = state.networks.get_mut(name) {
        network.addresses.remove(&address);
        network.version += 1;
    }
}

/// An endpoint changed its host.
pub(super) fn touch(state: &mut State, name: &NetworkName) {
    if let Some(network) = state.networks.get_mut(name) {
        network.version += 1;
    }
}

/// The host has another underlay address: every table that names it changes.
pub(super) fn host_moved(state: &mut State, host: &HostName) {
    let containers = &state.containers;
    for network in state.networks.values_mut() {
        let mut holders = network.addresses.values();
        if holders.any(|id| containers.get(id).is_some_and(|c| c.host == *host)) {
            network.version += 1;
        }
    }
}
