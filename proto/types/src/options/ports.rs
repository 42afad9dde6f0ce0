//! Ports that are published, and what resolves in a container.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ContainerName};

/// The most of anything in here.
pub const MAX_ENTRIES: usize = 512;
const MAX_NAME: usize = 253;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortOptions {
    /// Every one with its port of the host, once the container was accepted.
    pub published: Vec<Published>,
    /// Publish what the image serves, too.
    pub publish_all: bool,
    /// Whose network it has. Set when the container is accepted.
    pub mode: NetworkMode,
    /// Asked in place of the host's resolvers.
    pub dns: Vec<IpAddr>,
    /// Empty: the host's.
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// Lines of `/etc/hosts`.
    pub add_host: Vec<ExtraHost>,
    /// What it is called on its network besides its name.
    pub aliases: Vec<String>,
}

/// Whose network namespace a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum NetworkMode {
    #[default]
    Own,
    /// The host's.
    Host,
    /// Another container's, on the same host.
    Container {
        container: ContainerId,
        /// What it was called then.
        name: ContainerName,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// None: every address of the host.
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    /// 0: one is chosen when the container is accepted.
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
}

impl Published {
    /// Whether one host can't have both.
    pub fn collides(&self, other: &Self) -> bool {
        let both = |a: Option<Ipv4Addr>, b: Option<Ipv4Addr>| a.is_none() || b.is_none() || a == b;
        self.host != 0
            && self.host == other.host
            && self.protocol == other.protocol
            && both(self.ip, other.ip)
    }
}

/// `8080/tcp`, `127.0.0.1:8080/tcp`: of the host.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{ip}:{}/{}", self.host, self.protocol),
            None => write!(f, "{}/{}", self.host, self.protocol),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    pub name: String,
    /// An address, or `host-gateway`.
    pub address: String,
}

/// The word for the host as its containers reach it.
pub const HOST_GATEWAY: &str = "host-gateway";

impl PortOptions {
    /// The first thing that is not valid, and why.
    pub fn check(&self) -> Result<(), (String, String)> {
        let refuse = |what: &str, problem: &str| Err((what.to_owned(), problem.to_owned()));
        let counts = [
            self.published.len(),
            self.dns.len(),
            self.dns_search.len(),
            self.dns_options.len(),
            self.add_host.len(),
            self.aliases.len(),
        ];
        if counts.iter().any(|count| *count > MAX_ENTRIES) {
            return refuse("network options", "there are more than 512 of one kind");
        }
        for (index, port) in self.published.iter().enumerate() {
            if port.container == 0 {
                return refuse(&port.to_string(), "port 0 of a container is none");
            }
            if self.published[..index].iter().any(|p| p.collides(port)) {
                return refuse(&port.to_string(), "it is published twice");
            }
        }
        let names = self.dns_search.iter().chain(&self.aliases);
        for name in names.chain(self.add_host.iter().map(|extra| &extra.name)) {
            if !is_domain(name) {
                return refuse(name, "it is no host name");
            }
        }
        for option in &self.dns_options {
            if option.is_empty() || option.len() > MAX_NAME || !option.chars().all(is_plain) {
                return refuse(option, "it is no option of a resolver");
            }
        }
        for ExtraHost { address, .. } in &self.add_host {
            if address != HOST_GATEWAY && address.parse::<IpAddr>().is_err() {
                return refuse(address, "it is neither an address nor `host-gateway`");
            }
        }
        Ok(())
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

/// `.` alone is a search domain that means none.
fn is_domain(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name == "." || (name.len() <= MAX_NAME && name.trim_end_matches('.').split('.').all(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(ip: Option<&str>, host: u16) -> Published {
        Published {
            ip: ip.map(|ip| ip.parse().unwrap()),
            host,
            container: 80,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn one_port_leads_to_one_place() {
        let all = published(None, 80);
        assert!(all.collides(&published(Some("127.0.0.1"), 80)));
        assert!(!published(Some("127.0.0.1"), 80).collides(&published(Some("10.0.0.1"), 80)));
        assert!(!all.collides(&published(None, 81)));
        // One that is still to be chosen collides with none.
        assert!(!published(None, 0).collides(&published(None, 0)));
        let mut udp = published(None, 80);
        udp.protocol = Protocol::Udp;
        assert!(!all.collides(&udp));
    }

    #[test]
    fn a_line_of_a_file_can_not_be_smuggled_in() {
        let mut options = PortOptions {
            dns_search: vec!["example.org".into(), ".".into()],
            ..PortOptions::default()
        };
        options.check().unwrap();
        options.dns_search.push("a\nnameserver 1.2.3.4".into());
        assert!(options.check().is_err());
        let add_host = |name: &str, address: &str| PortOptions {
            add_host: vec![ExtraHost {
                name: name.into(),
                address: address.into(),
            }],
            ..PortOptions::default()
        };
        add_host("db", "host-gateway").check().unwrap();
        add_host("db", "fd00::1").check().unwrap();
        assert!(add_host("db", "1.2.3").check().is_err());
        assert!(add_host("d b", "1.2.3.4").check().is_err());
    }
}
