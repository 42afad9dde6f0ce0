//! `NAME=ADDRESS:PORT`, as `godwit cluster init` takes its members and hosts.

use std::{fmt::Display, net::SocketAddr, str::FromStr};

/// A part of the cluster and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<N> {
    pub name: N,
    pub address: SocketAddr,
}

impl<N> FromStr for Part<N>
where
    N: FromStr,
    N::Err: Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, address) = text
            .split_once('=')
            .ok_or("it is not NAME=ADDRESS:PORT, as in `a=10.0.0.1:7400`")?;
        let name = name.parse().map_err(|error: N::Err| error.to_string())?;
        let address: SocketAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an IP address and a port"))?;
        // The others dial exactly this, and hosts send network packets to it.
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(format!(
                "`{}` is not the address of one machine",
                address.ip()
            ));
        }
        if address.port() == 0 {
            return Err("port 0 can't be dialled".into());
        }
        Ok(Self { name, address })
    }
}

#[cfg(test)]
mod tests {
    use godwit_types::HostName;

    use super::*;

    #[test]
    fn only_an_address_that_others_can_dial_is_taken() {
        let part: Part<HostName> = "h1=10.0.0.1:7401".parse().unwrap();
        assert_eq!(part.name.as_str(), "h1");
        assert_eq!(part.address.to_string(), "10.0.0.1:7401");
        for bad in [
            "",
            "h1",
            "h1=",
            "=10.0.0.1:1",
            "h1=10.0.0.1",
            "h1=10.0.0.1:0",
            "h1=0.0.0.0:7401",
            "h1=[::]:7401",
            "h1=example:7401",
            "../h=10.0.0.1:7401",
        ] {
            assert!(bad.parse::<Part<HostName>>().is_err(), "{bad}");
        }
    }
}
