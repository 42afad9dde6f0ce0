//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container, as Docker writes them. They
//! move with it, so nothing in them is of one host, unless the container has that host's network.

use std::{fs, path::Path};

use godwit_types::{ContainerSpec, HOST_GATEWAY, NetworkMode};

/// What is in the host's own files.
#[derive(Debug, Clone, Default)]
pub struct HostFiles {
    pub hosts: String,
    pub resolv: String,
}

impl HostFiles {
    /// What can't be read is empty.
    pub fn read() -> Self {
        Self::read_in(Path::new("/etc"))
    }

    pub fn read_in(dir: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        Self {
            hosts: read("hosts"),
            resolv: read("resolv.conf"),
        }
    }

    fn values(&self, keyword: &str) -> Vec<&str> {
        let lines = self.resolv.lines();
        let mut found = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(keyword)).then(|| words.collect::<Vec<_>>())
        });
        // Of several lines the last one counts.
        found.next_back().unwrap_or_default()
    }
}

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
                     ::1\tlocalhost ip6-localhost ip6-loopback\n\
                     fe00::\tip6-localnet\n\
                     ff00::\tip6-mcastprefix\n\
                     ff02::1\tip6-allnodes\n\
                     ff02::2\tip6-allrouters\n";

/// `hostname`: what the container is called by itself.
pub fn hosts(spec: &ContainerSpec, hostname: &str, host: &HostFiles) -> String {
    let ports = &spec.options.ports;
    let mut text = match ports.mode {
        NetworkMode::Host => host.hosts.clone(),
        NetworkMode::Own | NetworkMode::Container { .. } => LOCAL.to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let gateway = match &spec.network {
        Some(attachment) => attachment.network.subnet.gateway().to_string(),
        None => "127.0.0.1".to_owned(),
    };
    for extra in &ports.add_host {
        let address = match extra.address.as_str() {
            HOST_GATEWAY => &gateway,
            address => address,
        };
        text.push_str(&format!("{address}\t{}\n", extra.name));
    }
    if let Some(attachment) = &spec.network {
        let mut names = vec![hostname.to_owned()];
        if spec.name.as_str() != hostname {
            names.push(spec.name.to_string());
        }
        text.push_str(&format!("{}\t{}\n", attachment.address, names.join(" ")));
    }
    text
}

/// The name server is the network's gateway, which every host has, and which asks the resolvers of
/// the host that the container is on, or those that the user gave.
pub fn resolv(spec: &ContainerSpec, host: &HostFiles) -> String {
    let ports = &spec.options.ports;
    let mut text = String::new();
    match (&ports.mode, &spec.network) {
        (NetworkMode::Own, Some(attachment)) => {
            let gateway = attachment.network.subnet.gateway();
            text.push_str(&format!("nameserver {gateway}\n"));
        }
        (NetworkMode::Host, _) if ports.dns.is_empty() => {
            let lines = host.resolv.lines();
            let servers = lines.filter(|line| line.trim_start().starts_with("nameserver"));
            servers.for_each(|line| text.push_str(&format!("{}\n", line.trim())));
        }
        _ => ports
            .dns
            .iter()
            .for_each(|server| text.push_str(&format!("nameserver {server}\n"))),
    }
    let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    let search: Vec<String> = match ports.dns_search.is_empty() {
        true => owned(host.values("search")),
        false => ports.dns_search.clone(),
    };
    let options: Vec<String> = match ports.dns_options.is_empty() {
        true => owned(host.values("options")),
        false => ports.dns_options.clone(),
    };
    // `--dns-search .` means none.
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::{
        ContainerName, Digest, ExtraHost, Limits, NetworkAttachment, NetworkSpec, Options,
    };

    fn spec() -> ContainerSpec {
        let network = NetworkSpec {
            name: "n".parse().unwrap(),
            vni: 7,
            subnet: "10.9.0.0/16".parse().unwrap(),
        };
        ContainerSpec {
            name: ContainerName::new("web").unwrap(),
            image: "i".parse().unwrap(),
            image_id: Digest::from_sha256([1; 32]),
            command: vec![],
            env: vec![],
            limits: Limits::default(),
            network: Some(NetworkAttachment {
                network,
                address: "10.9.0.5".parse().unwrap(),
            }),
            hostname: String::new(),
            options: Options::default(),
        }
    }

    fn host() -> HostFiles {
        HostFiles {
            hosts: "127.0.0.1 localhost machine".into(),
            resolv: "search corp.example\nnameserver 192.0.2.53\noptions edns0\n".into(),
        }
    }

    #[test]
    fn the_files_are_dockers_with_the_gateway_as_name_server() {
        let mut spec = spec();
        let ports = &mut spec.options.ports;
        ports.add_host = vec![
            ExtraHost {
                name: "db".into(),
                address: "192.0.2.7".into(),
            },
            ExtraHost {
                name: "machine".into(),
                address: HOST_GATEWAY.into(),
            },
        ];
        let text = hosts(&spec, "abc", &host());
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost"));
        assert!(text.ends_with("192.0.2.7\tdb\n10.9.0.1\tmachine\n10.9.0.5\tabc web\n"));
        assert_eq!(
            resolv(&spec, &host()),
            "nameserver 10.9.0.1\nsearch corp.example\noptions edns0\n"
        );
        let ports = &mut spec.options.ports;
        ports.dns = vec!["192.0.2.1".parse().unwrap()];
        ports.dns_search = vec![".".into()];
        ports.dns_options = vec!["ndots:2".into()];
        assert_eq!(
            resolv(&spec, &host()),
            "nameserver 10.9.0.1\noptions ndots:2\n"
        );
    }

    #[test]
    fn with_the_hosts_network_they_are_the_hosts() {
        let mut spec = spec();
        spec.network = None;
        spec.options.ports.mode = NetworkMode::Host;
        assert_eq!(
            hosts(&spec, "machine", &host()),
            "127.0.0.1 localhost machine\n"
        );
        assert!(resolv(&spec, &host()).starts_with("nameserver 192.0.2.53\n"));
        spec.options.ports.mode = NetworkMode::Own;
        assert_eq!(
            resolv(&spec, &host()),
            "search corp.example\noptions edns0\n"
        );
    }
}
