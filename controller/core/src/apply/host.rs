//! The cluster and its hosts.

use std::{collections::BTreeMap, net::Ipv4Addr};

use godwit_types::{HostName, Refusal};

use super::{Applied, network};
use crate::state::{Host, State};

pub(super) fn init(state: &mut State, cluster: &str) -> Applied {
    // The first name stands: two leaders may both have proposed it.
    if state.cluster.is_empty() && !cluster.is_empty() {
        cluster.clone_into(&mut state.cluster);
        Applied::Changed
    } else {
        Applied::Unchanged
    }
}

pub(super) fn seen(
    state: &mut State,
    name: &HostName,
    address: &str,
    underlay: Ipv4Addr,
) -> Applied {
    let known = state.hosts.get(name);
    let host = Host {
        address: address.to_owned(),
        underlay,
        drain: known.and_then(|host| host.drain.clone()),
        labels: known.map(|host| host.labels.clone()).unwrap_or_default(),
    };
    let old = state.hosts.insert(name.clone(), host.clone());
    if old.as_ref() == Some(&host) {
        return Applied::Unchanged;
    }
    if old.is_some_and(|old| old.underlay != underlay) {
        network::host_moved(state, name);
    }
    Applied::Changed
}

/// Containers that are there stay, whatever they asked for: it holds for those that come.
pub(super) fn label(
    state: &mut State,
    name: &HostName,
    labels: &BTreeMap<String, String>,
) -> Result<Applied, Refusal> {
    let host = state
        .hosts
        .get_mut(name)
        .ok_or_else(|| Refusal::UnknownHost {
            host: name.to_string(),
        })?;
    if host.labels == *labels {
        return Ok(Applied::Unchanged);
    }
    host.labels.clone_from(labels);
    Ok(Applied::Changed)
}
