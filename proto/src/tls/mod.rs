//! TLS 1.3 with certificates on both sides, and identities in them.
//!
//! The cluster has one certificate authority ([`Authority`]). A certificate names its holder by
//! a URI, `godwit://CLUSTER/ROLE/NAME` ([`Identity`]); nothing else in it means anything to us.
//! A server learns its caller from it ([`accept`]); a client that dials a host or a member
//! insists on the one it meant ([`connect`]).

mod accept;
mod authority;
mod connect;
mod credentials;
mod identity;
mod socket;

pub use accept::{Accepted, Peer, incoming, listen};
pub use authority::{Authority, AuthorityError};
pub use connect::{Dialed, Target, channel, connected, dial, dial_as, local_channel};
pub use credentials::{Credentials, CredentialsError, offering};
pub use identity::{Identity, IdentityError, Role};

/// Chooses the process's cryptography. Every `main` calls it first.
pub fn install_crypto() {
    // An error means that it was already chosen, by the same call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
