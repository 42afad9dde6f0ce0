//! Published ports, and what resolves inside.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, bail, ensure};
use godwit_types::{ExtraHost, PortOptions, Protocol, Published};

/// The most ports of one range.
const MAX_RANGE: u16 = 512;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Publish a port of the container on its host: 8080:80, 127.0.0.1:53:53/udp, or 80 alone for
    /// a port that is chosen
    #[arg(short, long, value_name = "[[IP:]HOST:]PORT[/udp]")]
    publish: Vec<String>,
    /// Publish every port that the image serves
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Ask this name server in place of the host's
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Look names up in this domain, too
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option for the resolver, as in ndots:2
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// A line for /etc/hosts; `host-gateway` is the container's host
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Another name on the network
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
}

impl Flags {
    pub fn options(self) -> anyhow::Result<PortOptions> {
        let mut published = Vec::new();
        for text in &self.publish {
            let ports = published_of(text);
            published
                .extend(ports.with_context(|| format!("`--publish {text}` is not understood"))?);
        }
        let add_host = self.add_host.iter().map(|text| extra(text));
        Ok(PortOptions {
            published,
            publish_all: self.publish_all,
            dns: self.dns,
            dns_search: self.dns_search,
            dns_options: self.dns_option,
            add_host: add_host.collect::<anyhow::Result<_>>()?,
            aliases: self.network_alias,
            ..PortOptions::default()
        })
    }
}

/// `[[IP:]HOST:]PORT[/PROTOCOL]`, each a number or a range.
fn published_of(text: &str) -> anyhow::Result<Vec<Published>> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => bail!("protocol `{other}` is neither `tcp` nor `udp`"),
    };
    let parts: Vec<&str> = ports.split(':').collect();
    let (ip, host, container) = match parts[..] {
        [container] => ("", "", container),
        [host, container] => ("", host, container),
        [ip, host, container] => (ip, host, container),
        _ => bail!("it is `[[IP:]HOST:]PORT[/udp]`, with an IPv4 address"),
    };
    let ip: Option<Ipv4Addr> = match ip {
        "" | "0.0.0.0" => None,
        ip => Some(ip.parse().context("its address is no IPv4 address")?),
    };
    let (first, last) = range(container)?;
    let count = last - first;
    ensure!(count < MAX_RANGE, "a range has at most {MAX_RANGE} ports");
    let host_first = match host {
        "" | "0" => None,
        host => {
            let (host_first, host_last) = range(host)?;
            let same = host_last - host_first == count;
            ensure!(same, "its two ranges differ in length");
            Some(host_first)
        }
    };
    let one = |offset: u16| Published {
        ip,
        host: host_first.map_or(0, |host| host + offset),
        container: first + offset,
        protocol,
    };
    Ok((0..=count).map(one).collect())
}

fn range(text: &str) -> anyhow::Result<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let number: Option<u16> = text.parse().ok();
        number
            .filter(|number| *number != 0)
            .with_context(|| format!("`{text}` is no port"))
    };
    let (first, last) = (number(first)?, number(last)?);
    ensure!(first <= last, "a range ends where it begins or later");
    Ok((first, last))
}

/// `NAME:IP`, also `NAME=IP`.
fn extra(text: &str) -> anyhow::Result<ExtraHost> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .with_context(|| format!("`--add-host {text}` is not `NAME:IP`"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    Ok(ExtraHost {
        name: name.to_owned(),
        address: address.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_reads_them() {
        let read = |text: &str| {
            let ports = published_of(text).unwrap();
            let shown = ports.iter().map(|p| format!("{p}>{}", p.container));
            shown.collect::<Vec<_>>().join(" ")
        };
        for (text, meant) in [
            ("80", "0/tcp>80"),
            ("8080:80", "8080/tcp>80"),
            ("127.0.0.1:5353:53/udp", "127.0.0.1:5353/udp>53"),
            ("127.0.0.1::53", "127.0.0.1:0/tcp>53"),
            ("0.0.0.0:1:2", "1/tcp>2"),
            ("8000-8001:80-81", "8000/tcp>80 8001/tcp>81"),
        ] {
            assert_eq!(read(text), meant);
        }
        for bad in [
            "",
            "x",
            "0",
            "1:2:3",
            "80/sctp",
            "70000",
            "1-3:1-2",
            "3-1",
            "::1:80:80",
        ] {
            assert!(published_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_added_with_an_address_of_either_kind() {
        let read = |text: &str| {
            let extra = extra(text).unwrap();
            (extra.name, extra.address)
        };
        assert_eq!(read("db:10.0.0.1"), ("db".into(), "10.0.0.1".into()));
        assert_eq!(read("db:fd00::1"), ("db".into(), "fd00::1".into()));
        assert_eq!(read("db=[fd00::1]"), ("db".into(), "fd00::1".into()));
        assert!(extra("db").is_err());
    }
}
