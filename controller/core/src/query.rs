//! Finding things by what people type, and the tables that agents need.

use godwit_types::{Endpoint, NetworkTable, Refusal};

use crate::{
    state::{Container, Migration, Network, State},
    volume::Volume,
};

/// By name, by id, or by the beginning of an id, in this order.
pub fn find_container<'a>(state: &'a State, text: &str) -> Result<&'a Container, Refusal> {
    let mut named = state.containers.values();
    if let Some(found) = named.find(|c| c.spec.name.as_str() == text) {
        return Ok(found);
    }
    let mut matching = state
        .containers
        .values()
        .filter(|c| !text.is_empty() && c.id.as_str().starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Refusal::AmbiguousContainer {
            prefix: text.to_owned(),
        }),
        (None, _) => Err(Refusal::UnknownContainer {
            name: text.to_owned(),
        }),
    }
}

/// By id, or by the beginning of one that fits only one.
pub fn find_migration<'a>(state: &'a State, text: &str) -> Result<&'a Migration, Refusal> {
    let mut matching = state
        .migrations
        .values()
        .filter(|m| !text.is_empty() && m.id.as_str().starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => Err(Refusal::Invalid {
            what: text.to_owned(),
            problem: "it is the beginning of more than one migration id".to_owned(),
        }),
        (None, _) => Err(Refusal::UnknownMigration {
            migration: text.to_owned(),
        }),
    }
}

pub fn find_network<'a>(state: &'a State, text: &str) -> Result<&'a Network, Refusal> {
    let mut networks = state.networks.values();
    networks
        .find(|network| network.spec.name.as_str() == text)
        .ok_or_else(|| Refusal::UnknownNetwork {
            network: text.to_owned(),
        })
}

pub fn find_volume<'a>(state: &'a State, text: &str) -> Result<&'a Volume, Refusal> {
    let mut volumes = state.volumes.values();
    volumes
        .find(|volume| volume.name.as_str() == text)
        .ok_or_else(|| Refusal::UnknownVolume {
            volume: text.to_owned(),
        })
}

/// What a container is called on its network: its name, its short id, and what else it was given.
fn names(container: &Container) -> Vec<String> {
    let mut names = vec![
        container.spec.name.to_string(),
        container.id.short().to_owned(),
    ];
    names.extend(container.spec.options.ports.aliases.iter().cloned());
    names
}

/// The table that every agent must have of this network.
pub fn table(state: &State, network: &Network) -> NetworkTable {
    let endpoints = network.addresses.iter().filter_map(|(address, container)| {
        let holder = state.containers.get(container)?;
        let owner = &holder.host;
        Some(Endpoint {
            container: container.clone(),
            address: *address,
            host: owner.clone(),
            underlay: state.hosts.get(owner)?.underlay,
            names: names(holder),
        })
    });
    NetworkTable {
        network: network.spec.clone(),
        version: network.version,
        endpoints: endpoints.collect(),
    }
}
