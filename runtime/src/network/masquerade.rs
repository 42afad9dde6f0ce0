//! The way out: packets from a network to anywhere else carry the host's address. What comes in
//! for the host's loopback is dropped, since published ports open the way there.

use godwit_types::NetworkSpec;

use super::{device::bridge_name, error::Result, nft};

/// Puts the rules in place, whatever was there.
pub fn ensure(network: &NetworkSpec) -> Result<()> {
    let (table, subnet) = (table(network.vni), network.subnet);
    let bridge = bridge_name(network.vni);
    nft::apply(
        &table,
        &format!(
            "add table ip {table}\n\
             flush table ip {table}\n\
             table ip {table} {{\n\
               chain postrouting {{\n\
                 type nat hook postrouting priority srcnat;\n\
                 ip saddr {subnet} ip daddr != {subnet} masquerade\n\
               }}\n\
               chain prerouting {{\n\
                 type filter hook prerouting priority raw;\n\
                 iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n\
               }}\n\
             }}\n"
        ),
    )
}

/// Removes them, if they are there.
pub fn remove(vni: u32) -> Result<()> {
    let table = table(vni);
    nft::apply(
        &table,
        &format!("add table ip {table}\ndelete table ip {table}\n"),
    )
}

fn table(vni: u32) -> String {
    format!("godwit-{vni}")
}
