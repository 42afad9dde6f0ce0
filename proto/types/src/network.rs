//! Cluster networks: one VXLAN each, with addresses that move with their containers.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ContainerId, HostName, IdError, NetworkName};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of a container is derived from its IP, so that it needs no allocation and
    /// moves with it: `02:67` (locally administered) and the four bytes.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x67, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for MacAddr {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        let refuse = || IdError::Name {
            what: "mac address",
            value: value.chars().take(40).collect(),
        };
        let mut bytes = [0u8; 6];
        let mut parts = value.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            Err(refuse())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl From<MacAddr> for String {
    fn from(value: MacAddr) -> String {
        value.to_string()
    }
}

/// An IPv4 subnet, `10.88.0.0/16`. Prefixes from /8 to /29.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

impl Subnet {
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    fn size(&self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The gateway: the first address, the same on every host.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    /// The addresses that containers can have, lowest first.
    pub fn hosts(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let base = u32::from(self.base);
        (base + 2..base + self.size() - 1).map(Ipv4Addr::from)
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (u32::from(address) ^ u32::from(self.base)) < self.size()
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

impl FromStr for Subnet {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::Name {
            what: "subnet",
            value: text.chars().take(40).collect(),
        };
        let (base, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let base: Ipv4Addr = base.parse().map_err(|_| refuse())?;
        let prefix: u8 = prefix.parse().map_err(|_| refuse())?;
        if !(8..=29).contains(&prefix) || u32::from(base) & ((1 << (32 - prefix)) - 1) != 0 {
            return Err(refuse());
        }
        Ok(Self { base, prefix })
    }
}

impl TryFrom<String> for Subnet {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        value.parse()
    }
}

impl From<Subnet> for String {
    fn from(value: Subnet) -> String {
        value.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub name: NetworkName,
    /// The VXLAN network identifier, 24 bits, unique in the cluster.
    pub vni: u32,
    pub subnet: Subnet,
}

/// A container's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    pub network: NetworkSpec,
    pub address: Ipv4Addr,
}

impl NetworkAttachment {
    pub fn mac(&self) -> MacAddr {
        MacAddr::of(self.address)
    }
}

/// Where one address of a network is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    pub container: ContainerId,
    pub address: Ipv4Addr,
    pub host: HostName,
    /// The host's address on the underlay: where VXLAN packets go.
    pub underlay: Ipv4Addr,
    /// What its container is called there, its own name first.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The whole of one network as every agent on it must have it. A table with a lower version
/// than one already applied is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTable {
    pub network: NetworkSpec,
    pub version: u64,
    pub endpoints: Vec<Endpoint>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_gives_its_gateway_and_its_hosts() {
        let subnet: Subnet = "10.88.0.0/29".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 88, 0, 1));
        let hosts: Vec<_> = subnet.hosts().collect();
        assert_eq!(hosts.first(), Some(&Ipv4Addr::new(10, 88, 0, 2)));
        assert_eq!(hosts.last(), Some(&Ipv4Addr::new(10, 88, 0, 6)));
        assert!(subnet.contains(hosts[0]) && !subnet.contains(Ipv4Addr::new(10, 88, 0, 8)));
        for bad in [
            "10.88.0.1/16",
            "10.0.0.0/7",
            "10.0.0.0/30",
            "x/8",
            "10.0.0.0",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn subnets_overlap_when_one_holds_the_other() {
        let wide: Subnet = "10.0.0.0/8".parse().unwrap();
        let narrow: Subnet = "10.7.0.0/16".parse().unwrap();
        let other: Subnet = "172.20.0.0/16".parse().unwrap();
        assert!(wide.overlaps(&narrow) && narrow.overlaps(&wide) && !wide.overlaps(&other));
    }

    #[test]
    fn a_mac_reads_back() {
        let mac = MacAddr::of(Ipv4Addr::new(10, 88, 1, 254));
        assert_eq!(mac.to_string(), "02:67:0a:58:01:fe");
        assert_eq!(MacAddr::try_from(mac.to_string()).unwrap(), mac);
        assert!(MacAddr::try_from("02:67:0a:58:01".to_owned()).is_err());
    }
}
