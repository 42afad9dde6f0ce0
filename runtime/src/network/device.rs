//! A network's own devices: its bridge and its VXLAN device.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use godwit_types::{MacAddr, NetworkSpec};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVxlan,
    packet_route::{address::AddressAttribute, link::LinkAttribute, neighbour::NeighbourFlags},
};

use super::error::{NetworkError, Result, is_absent, is_present, link};

/// VXLAN's registered port.
const PORT: u16 = 4789;
/// What VXLAN adds to a packet: IP, UDP, VXLAN and Ethernet headers.
const OVERHEAD: u32 = 50;

pub fn bridge_name(vni: u32) -> String {
    format!("gwb{vni}")
}

pub fn vxlan_name(vni: u32) -> String {
    format!("gwx{vni}")
}

/// Whether a container is connected to the network's bridge.
pub async fn has_containers(handle: &Handle, vni: u32) -> Result<bool> {
    let name = bridge_name(vni);
    let Some(bridge) = index(handle, &name).await? else {
        return Ok(false);
    };
    let mut links = handle.link().get().execute();
    while let Some(message) = links.try_next().await.map_err(link("looking up", &name))? {
        let is_port = message
            .attributes
            .iter()
            .any(|a| matches!(a, LinkAttribute::Controller(index) if *index == bridge));
        let is_container = message.attributes.iter().any(
            |a| matches!(a, LinkAttribute::IfName(name) if name.starts_with(super::veth::PREFIX)),
        );
        if is_port && is_container {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The index of a link, None if there is none.
pub async fn index(handle: &Handle, name: &str) -> Result<Option<u32>> {
    let found = handle
        .link()
        .get()
        .match_name(name.to_owned())
        .execute()
        .try_next()
        .await;
    match found {
        Ok(message) => Ok(message.map(|message| message.header.index)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(link("looking up", name)(error)),
    }
}

pub async fn expect_index(handle: &Handle, name: &str) -> Result<u32> {
    index(handle, name)
        .await?
        .ok_or_else(|| NetworkError::NoLink(name.to_owned()))
}

/// The link with the underlay's address: its index and its MTU.
pub async fn underlay(handle: &Handle, address: Ipv4Addr) -> Result<(u32, u32)> {
    let mut addresses = handle
        .address()
        .get()
        .set_address_filter(IpAddr::V4(address))
        .execute();
    let found = addresses
        .try_next()
        .await
        .map_err(link("looking up", "underlay"))?;
    let message = found.ok_or(NetworkError::NoUnderlay(address))?;
    debug_assert!(
        message
            .attributes
            .iter()
            .any(|a| matches!(a, AddressAttribute::Address(_)))
    );
    let index = message.header.index;
    let mut links = handle.link().get().match_index(index).execute();
    let found = links
        .try_next()
        .await
        .map_err(link("looking up", "underlay"))?;
    let mtu = found
        .into_iter()
        .flat_map(|message| message.attributes)
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(mtu),
            _ => None,
        });
    Ok((index, mtu.unwrap_or(1500)))
}

/// The MTU inside a network over this underlay.
pub fn inner_mtu(underlay: u32) -> u32 {
    underlay.saturating_sub(OVERHEAD).clamp(576, 65_485)
}

/// Makes what is missing of a network's devices.
pub async fn ensure(
    handle: &Handle,
    network: &NetworkSpec,
    local: Ipv4Addr,
    underlay: u32,
    mtu: u32,
) -> Result<()> {
    let (bridge, vxlan) = (bridge_name(network.vni), vxlan_name(network.vni));
    let gateway = network.subnet.gateway();
    if index(handle, &bridge).await?.is_none() {
        let message = LinkBridge::new(&bridge)
            // The same on every host: a container that moves keeps its gateway.
            .address(MacAddr::of(gateway).0.to_vec())
            .mtu(mtu)
            .forward_delay(0)
            .build();
        present(handle.link().add(message).execute().await).map_err(link("making", &bridge))?;
    }
    let bridge_index = expect_index(handle, &bridge).await?;
    no_ipv6(&bridge);
    present(
        handle
            .address()
            .add(bridge_index, IpAddr::V4(gateway), network.subnet.prefix())
            .execute()
            .await,
    )
    .map_err(link("addressing", &bridge))?;
    up(handle, &bridge, bridge_index).await?;

    if index(handle, &vxlan).await?.is_none() {
        let message = LinkVxlan::new(&vxlan, network.vni)
            .dev(underlay)
            .local(local)
            .port(PORT)
            .learning(false)
            // It answers ARP for the addresses it was told, so that no question leaves the host.
            .proxy(true)
            .mtu(mtu)
            .build();
        present(handle.link().add(message).execute().await).map_err(link("making", &vxlan))?;
    }
    let vxlan_index = expect_index(handle, &vxlan).await?;
    no_ipv6(&vxlan);
    let message = LinkUnspec::new_with_index(vxlan_index)
        .controller(bridge_index)
        .build();
    handle
        .link()
        .set(message)
        .execute()
        .await
        .map_err(link("enslaving", &vxlan))?;
    // Where an address is comes from the table alone: a learned place would outlive a move.
    let message = LinkBridgePort::new(vxlan_index).learning(false).build();
    handle
        .link()
        .set_port(message)
        .execute()
        .await
        .map_err(link("setting", &vxlan))?;
    up(handle, &vxlan, vxlan_index).await
}

async fn up(handle: &Handle, name: &str, index: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    handle
        .link()
        .set(message)
        .execute()
        .await
        .map_err(link("raising", name))
}

/// Best effort: without it the device only has an address that nobody uses.
pub fn no_ipv6(link: &str) {
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1");
}

/// Removes a link. Nothing there is fine.
pub async fn delete(handle: &Handle, name: &str) -> Result<()> {
    let Some(index) = index(handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(index).execute().await {
        Err(error) if !is_absent(&error) => Err(link("removing", name)(error)),
        _ => Ok(()),
    }
}

/// Sends a remote address's packets to the host behind which it is.
pub async fn set_remote(
    handle: &Handle,
    name: &str,
    vxlan: u32,
    address: Ipv4Addr,
    behind: Ipv4Addr,
) -> Result<()> {
    let mac = MacAddr::of(address).0;
    let forwarding = handle
        .neighbours()
        .add_bridge(vxlan, &mac)
        .flags(NeighbourFlags::Own)
        .destination(IpAddr::V4(behind))
        .replace()
        .execute();
    let arp = handle
        .neighbours()
        .add(vxlan, IpAddr::V4(address))
        .link_layer_address(&mac)
        .replace()
        .execute();
    let (forwarding, arp) = futures::join!(forwarding, arp);
    forwarding.map_err(link("adding a forwarding entry", name))?;
    arp.map_err(link("adding an ARP entry", name))
}

/// Forgets a remote address. Unknown is fine.
pub async fn remove_remote(
    handle: &Handle,
    name: &str,
    vxlan: u32,
    address: Ipv4Addr,
) -> Result<()> {
    use rtnetlink::packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    };
    let mac = MacAddr::of(address).0;
    let mut forwarding = NeighbourMessage::default();
    forwarding.header.family = AddressFamily::Bridge;
    forwarding.header.ifindex = vxlan;
    forwarding.header.flags = NeighbourFlags::Own;
    forwarding
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    let mut arp = NeighbourMessage::default();
    arp.header.family = AddressFamily::Inet;
    arp.header.ifindex = vxlan;
    arp.attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        )));
    for message in [forwarding, arp] {
        match handle.neighbours().del(message).execute().await {
            Err(error) if !is_absent(&error) => {
                return Err(link("removing an entry", name)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn present(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if is_present(&error) => Ok(()),
        other => other,
    }
}
