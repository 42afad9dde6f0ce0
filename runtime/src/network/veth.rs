//! A container's link: `eth0` inside its namespace, and the host's end on the bridge.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::Path,
};

use godwit_types::{ContainerId, NetworkAttachment};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

use super::{
    device::{bridge_name, delete, expect_index, no_ipv6},
    error::{NetworkError, Result, link},
    namespace,
};

const INSIDE: &str = "eth0";
/// What the host's ends are called begins so.
pub const PREFIX: &str = "gwv";

/// The host's end of a container's link. Link names have 15 bytes at most.
pub fn link_name(id: &ContainerId) -> String {
    format!("{PREFIX}{}", &id.short()[..11])
}

/// Makes the pair, with the host's end down: the gate is shut.
pub async fn create(
    handle: &Handle,
    id: &ContainerId,
    attachment: &NetworkAttachment,
    netns: &Path,
    mtu: u32,
) -> Result<()> {
    let outside = link_name(id);
    let inside = format!("gwp{}", &id.short()[..11]);
    // What an attempt before this one left.
    delete(handle, &outside).await?;
    let bridge = expect_index(handle, &bridge_name(attachment.network.vni)).await?;
    let pair = LinkVeth::new(&outside, &inside)
        .mtu(mtu)
        .controller(bridge)
        .build();
    handle
        .link()
        .add(pair)
        .execute()
        .await
        .map_err(link("making", &outside))?;
    no_ipv6(&outside);
    let namespace = File::open(netns).map_err(|source| NetworkError::Namespace {
        step: "opening",
        path: netns.to_owned(),
        source,
    })?;
    let index = expect_index(handle, &inside).await?;
    let moved = LinkUnspec::new_with_index(index)
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    handle
        .link()
        .set(moved)
        .execute()
        .await
        .map_err(link("moving", &inside))?;
    let attachment = attachment.clone();
    namespace::inside_async(netns, async move || {
        configure(&inside, &attachment, mtu).await
    })
}

/// Inside the namespace: name, addresses and the default route. The link is raised there, so
/// that addresses and routes exist while the host's end is still down.
async fn configure(name: &str, attachment: &NetworkAttachment, mtu: u32) -> Result<()> {
    let (connection, handle, _) = new_connection().map_err(NetworkError::Netlink)?;
    let driver = tokio::spawn(connection);
    let index = expect_index(&handle, name).await?;
    let message = LinkUnspec::new_with_index(index)
        .name(INSIDE)
        .address(attachment.mac().0.to_vec())
        .mtu(mtu)
        .build();
    handle
        .link()
        .set(message)
        .execute()
        .await
        .map_err(link("setting", name))?;
    let subnet = attachment.network.subnet;
    handle
        .address()
        .add(index, IpAddr::V4(attachment.address), subnet.prefix())
        .execute()
        .await
        .map_err(link("addressing", INSIDE))?;
    let message = LinkUnspec::new_with_index(index).up().build();
    handle
        .link()
        .set(message)
        .execute()
        .await
        .map_err(link("raising", INSIDE))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(subnet.gateway())
        .build();
    handle
        .route()
        .add(route)
        .execute()
        .await
        .map_err(link("routing", INSIDE))?;
    driver.abort();
    Ok(())
}
