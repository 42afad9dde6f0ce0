//! The cluster and its hosts.

use std::net::Ipv4Addr;

use godwit_types::HostName;

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
