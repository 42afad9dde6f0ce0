//! Published ports: packets for a port of this host go to a container.
//!
//! A table of nftables for each container, and, so that nothing else on the host takes the port or
//! is taken for the container, a socket bound to it that nobody listens on. The rules are the
//! kernel's and outlive the agent; the sockets are made again by the next one.
//!
//! | from | rule |
//! |---|---|
//! | other machines | `prerouting`: destination becomes the container |
//! | this host, 127.0.0.1 included | `output`: the same |
//! | 127.0.0.1, and containers of the same network | `postrouting`: source becomes the bridge, so that replies come back this way |

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::Mutex,
};

use godwit_types::{ContainerId, NetworkAttachment, Protocol, Published};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with,
    sockopt::set_socket_reuseaddr,
};

use super::{
    device::bridge_name,
    error::{NetworkError, Result},
    nft,
};

/// The sockets that keep ports from others.
#[derive(Default)]
pub struct Ports {
    kept: Mutex<HashMap<ContainerId, Vec<OwnedFd>>>,
}

impl Ports {
    /// Takes the ports, or says which can't be had. What the container had is given up first.
    pub fn reserve(&self, id: &ContainerId, ports: &[Published]) -> Result<()> {
        self.give_up(id);
        let mut sockets = Vec::new();
        for port in ports {
            sockets.push(take(port)?);
        }
        if !sockets.is_empty() {
            self.kept().insert(id.clone(), sockets);
        }
        Ok(())
    }

    pub fn give_up(&self, id: &ContainerId) {
        self.kept().remove(id);
    }

    /// Who has any.
    pub fn holders(&self) -> Vec<ContainerId> {
        self.kept().keys().cloned().collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Vec<OwnedFd>>> {
        self.kept.lock().expect("no holder panics")
    }
}

/// Whether nobody but this container has them.
pub fn check(ports: &[Published]) -> Result<()> {
    ports.iter().try_for_each(|port| take(port).map(drop))
}

fn take(port: &Published) -> Result<OwnedFd> {
    let address = SocketAddrV4::new(port.ip.unwrap_or(Ipv4Addr::UNSPECIFIED), port.host);
    bound(address, port.protocol).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => NetworkError::PortInUse(port.to_string()),
        io::ErrorKind::AddrNotAvailable => NetworkError::NoSuchAddress(*address.ip()),
        _ => NetworkError::Kernel {
            step: "taking",
            what: format!("port {port}"),
            source,
        },
    })
}

/// Bound, and not listening.
fn bound(address: SocketAddrV4, protocol: Protocol) -> io::Result<OwnedFd> {
    match protocol {
        Protocol::Udp => Ok(UdpSocket::bind(address)?.into()),
        Protocol::Tcp => match bound_tcp(address, false) {
            // Connections that are over must not be in the way. Two sockets with that option don't
            // mind one another before one of them listens, so it is not the first choice.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                drop(TcpListener::bind(address)?);
                bound_tcp(address, true)
            }
            other => other,
        },
    }
}

fn bound_tcp(address: SocketAddrV4, beside_ended: bool) -> io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )?;
    set_socket_reuseaddr(&socket, beside_ended)?;
    bind(&socket, &address)?;
    Ok(socket)
}

/// Puts the container's rules in place, whatever was there.
pub fn publish(
    id: &ContainerId,
    attachment: &NetworkAttachment,
    ports: &[Published],
) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let bridge = bridge_name(attachment.network.vni);
    // Packets from 127.0.0.1 may leave by this link; what comes in for it is dropped by the
    // network's own rules.
    let path = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    std::fs::write(&path, "1").map_err(|source| NetworkError::Kernel {
        step: "setting",
        what: format!("`{path}`"),
        source,
    })?;
    nft::apply(&table(id), &rules(id, attachment, ports))
}

/// Removes them. Nothing there is fine.
pub fn unpublish(id: &ContainerId) -> Result<()> {
    let table = table(id);
    nft::apply(
        &table,
        &format!("add table ip {table}\ndelete table ip {table}\n"),
    )
}

fn table(id: &ContainerId) -> String {
    format!("godwit-port-{}", id.short())
}

fn rules(id: &ContainerId, attachment: &NetworkAttachment, ports: &[Published]) -> String {
    let (table, to) = (table(id), attachment.address);
    let subnet = attachment.network.subnet;
    let mut matches = String::new();
    let mut back = String::new();
    for port in ports {
        let (protocol, host, container) = (port.protocol, port.host, port.container);
        let daddr = match port.ip {
            Some(ip) => format!("ip daddr {ip}"),
            None => "fib daddr type local".to_owned(),
        };
        matches.push_str(&format!(
            "    {daddr} {protocol} dport {host} dnat to {to}:{container}\n"
        ));
        back.push_str(&format!(
            "    ip saddr {{ 127.0.0.0/8, {subnet} }} ip daddr {to} {protocol} dport {container} \
             ct status dnat masquerade\n"
        ));
    }
    format!(
        "add table ip {table}\n\
         flush table ip {table}\n\
         table ip {table} {{\n\
         \x20 chain prerouting {{\n\
         \x20   type nat hook prerouting priority dstnat;\n{matches}\
         \x20 }}\n\
         \x20 chain output {{\n\
         \x20   type nat hook output priority -100;\n{matches}\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat - 1;\n{back}\
         \x20 }}\n\
         }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_named_and_one_that_is_kept_is_not_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Published {
            ip: Some(Ipv4Addr::LOCALHOST),
            host: taken.local_addr().unwrap().port(),
            container: 80,
            protocol: Protocol::Tcp,
        };
        let ports = Ports::default();
        let id = ContainerId::from_bytes([1; 32]);
        let refused = ports.reserve(&id, std::slice::from_ref(&port)).unwrap_err();
        assert!(matches!(refused, NetworkError::PortInUse(_)), "{refused}");
        assert!(refused.to_string().contains(&port.host.to_string()));
        drop(taken);
        ports.reserve(&id, std::slice::from_ref(&port)).unwrap();
        assert_eq!(ports.holders(), std::slice::from_ref(&id));
        assert!(TcpListener::bind(("127.0.0.1", port.host)).is_err());
        ports.give_up(&id);
        drop(TcpListener::bind(("127.0.0.1", port.host)).unwrap());
        let elsewhere = Published {
            ip: Some(Ipv4Addr::new(192, 0, 2, 1)),
            ..port
        };
        let refused = check(&[elsewhere]).unwrap_err();
        assert!(refused.to_string().contains("192.0.2.1"), "{refused}");
    }

    #[test]
    fn the_rules_name_the_port_and_where_it_leads() {
        let attachment = NetworkAttachment {
            network: godwit_types::NetworkSpec {
                name: "n".parse().unwrap(),
                vni: 7,
                subnet: "10.9.0.0/16".parse().unwrap(),
            },
            address: Ipv4Addr::new(10, 9, 0, 2),
        };
        let port = Published {
            ip: None,
            host: 8080,
            container: 80,
            protocol: Protocol::Tcp,
        };
        let text = rules(&ContainerId::from_bytes([1; 32]), &attachment, &[port]);
        assert_eq!(
            text.matches("fib daddr type local tcp dport 8080 dnat to 10.9.0.2:80\n")
                .count(),
            2
        );
        assert!(text.contains("hook prerouting") && text.contains("ct status dnat masquerade"));
    }
}
