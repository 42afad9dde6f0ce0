//! Which entries of a network's table have to be added and removed: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use godwit_types::{HostName, NetworkTable};

/// Remote addresses and the underlay address behind which each is.
pub type Entries = BTreeMap<Ipv4Addr, Ipv4Addr>;

/// The addresses of this table that are on other hosts.
pub fn remote(me: &HostName, table: &NetworkTable) -> Entries {
    table
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.host != *me)
        .map(|endpoint| (endpoint.address, endpoint.underlay))
        .collect()
}

/// What makes `old` into `new`.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    pub remove: BTreeSet<Ipv4Addr>,
    pub set: Entries,
}

pub fn difference(old: &Entries, new: &Entries) -> Difference {
    Difference {
        remove: old
            .keys()
            .filter(|address| !new.contains_key(address))
            .copied()
            .collect(),
        set: new
            .iter()
            .filter(|(address, behind)| old.get(address) != Some(behind))
            .map(|(address, behind)| (*address, *behind))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(u8, u8)]) -> Entries {
        list.iter()
            .map(|(a, b)| (Ipv4Addr::new(10, 0, 0, *a), Ipv4Addr::new(198, 18, 0, *b)))
            .collect()
    }

    #[test]
    fn only_what_changed_is_touched() {
        let change = difference(
            &entries(&[(1, 1), (2, 1), (3, 2)]),
            &entries(&[(1, 1), (2, 3)]),
        );
        assert_eq!(change.remove, BTreeSet::from([Ipv4Addr::new(10, 0, 0, 3)]));
        assert_eq!(change.set, entries(&[(2, 3)]));
        let none = difference(&entries(&[(1, 1)]), &entries(&[(1, 1)]));
        assert!(none.remove.is_empty() && none.set.is_empty());
    }
}
