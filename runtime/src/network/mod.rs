//! Networks of one host: a bridge and a VXLAN device for each cluster network, a network
//! namespace and a veth pair for each container, and the gate that cuts one container off.
//!
//! ```text
//!   container's namespace          host's namespace                       underlay
//!   eth0 ──────veth────── gwvXXXX ─┐
//!   eth0 ──────veth────── gwvYYYY ─┼─ gwbVNI (gateway) ── gwxVNI ═ VXLAN ═ other hosts
//!                            ↑ gate: up or down
//! ```
//!
//! Nothing is flooded between hosts and nothing is learned from them: every address of a network
//! is pushed to every host as a [`NetworkTable`](godwit_types::NetworkTable), and the VXLAN
//! device answers ARP for those that are elsewhere. All names are derived, so that a restarted
//! agent finds everything again.

mod announce;
mod device;
mod dns;
mod error;
mod hold;
mod masquerade;
mod namespace;
mod networks;
mod nft;
mod ports;
mod table;
mod veth;

pub(crate) use namespace::inside;

pub use error::NetworkError;
pub use hold::Hold;
pub use networks::{Gate, Networks};
pub use veth::link_name;
