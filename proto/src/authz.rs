//! Who may call what: one table, asked by every handler before it reads its request.

use tonic::{Request, Status};

use crate::tls::{Identity, Peer, Role};

/// A gRPC service of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Control,
    Dispatcher,
    Host,
    Transfer,
    Raft,
}

/// The roles that may call a service.
pub fn roles(service: Service) -> &'static [Role] {
    match service {
        // A member, when it forwards for an admin.
        Service::Control => &[Role::Admin, Role::Member],
        Service::Dispatcher => &[Role::Host],
        Service::Host => &[Role::Member],
        Service::Transfer => &[Role::Host],
        Service::Raft => &[Role::Member],
    }
}

/// The caller's identity, if its role may call this service.
pub fn require<T>(request: &Request<T>, service: Service) -> Result<Identity, Status> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .ok_or_else(|| Status::unauthenticated("the connection has no client certificate"))?;
    if roles(service).contains(&peer.identity.role) {
        Ok(peer.identity.clone())
    } else {
        Err(Status::permission_denied(format!(
            "{} may not call {service:?}: it is for {}",
            peer.identity,
            roles(service)
                .iter()
                .map(|role| role.as_str())
                .collect::<Vec<_>>()
                .join(" and "),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_speak_raft_and_only_hosts_send_containers() {
        assert_eq!(roles(Service::Raft), [Role::Member]);
        assert_eq!(roles(Service::Transfer), [Role::Host]);
        assert!(!roles(Service::Control).contains(&Role::Host));
        assert!(require(&Request::new(()), Service::Raft).is_err());
    }
}
