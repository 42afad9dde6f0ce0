//! What can go wrong with a network.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("netlink can't be reached")]
    Netlink(#[source] io::Error),
    #[error("{step} of link `{link}` failed")]
    Link {
        step: &'static str,
        link: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("link `{0}` does not exist")]
    NoLink(String),
    #[error(
        "no link has the underlay address {0}; is the agent's `listen` an address of this host?"
    )]
    NoUnderlay(std::net::Ipv4Addr),
    #[error("{step} of network namespace `{path}` failed")]
    Namespace {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{step} of {what} failed")]
    Kernel {
        step: &'static str,
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("`nft` refused the rules of table `{what}`: {said}; is nftables installed?")]
    Rules { what: String, said: String },
    #[error("port {0} is in use on this host")]
    PortInUse(String),
    #[error("{0} is no address of this host: nothing can be published on it")]
    NoSuchAddress(std::net::Ipv4Addr),
    #[error("container {0}, whose network is shared, is not on this host")]
    NoNamespace(String),
}

pub(super) type Result<T, E = NetworkError> = std::result::Result<T, E>;

/// Adds what was done to which link.
pub(super) fn link(
    step: &'static str,
    link: &str,
) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    let link = link.to_owned();
    move |source| NetworkError::Link { step, link, source }
}

/// Whether the kernel says that the thing is not there.
pub(super) fn is_absent(error: &rtnetlink::Error) -> bool {
    code(error).is_some_and(|code| code == nix::libc::ENODEV || code == nix::libc::ENOENT)
}

/// Whether the kernel says that the thing is there already.
pub(super) fn is_present(error: &rtnetlink::Error) -> bool {
    code(error).is_some_and(|code| code == nix::libc::EEXIST)
}

fn code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| code.get().abs()),
        _ => None,
    }
}
