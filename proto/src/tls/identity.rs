//! Who a certificate says its holder is.

use std::{fmt, str::FromStr};

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What kind of peer it is: what it may call follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A person or program that governs the cluster.
    Admin,
    /// A controller.
    Member,
    /// A machine's agent.
    Host,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Host => "host",
        }
    }

    /// The DNS name that every certificate of this role carries, since TLS wants one.
    pub(super) fn dns_name(self) -> String {
        format!("{}.godwit.internal", self.as_str())
    }
}

/// `godwit://CLUSTER/ROLE/NAME`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub cluster: String,
    pub role: Role,
    pub name: String,
}

/// Why a certificate or a URI names nobody.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("certificate can't be parsed")]
    Certificate(#[source] x509_parser::nom::Err<x509_parser::error::X509Error>),
    #[error("certificate names no identity `godwit://CLUSTER/ROLE/NAME`")]
    Missing,
    #[error("identity `{0}` is not `godwit://CLUSTER/ROLE/NAME`")]
    Malformed(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "godwit://{}/{}/{}",
            self.cluster,
            self.role.as_str(),
            self.name
        )
    }
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed(uri.chars().take(200).collect());
        let mut parts = uri
            .strip_prefix("godwit://")
            .ok_or_else(malformed)?
            .split('/');
        let (Some(cluster), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let role = match role {
            "admin" => Role::Admin,
            "member" => Role::Member,
            "host" => Role::Host,
            _ => return Err(malformed()),
        };
        let valid = |text: &str| godwit_types::HostName::new(text).is_ok();
        if !valid(cluster) || !valid(name) {
            return Err(malformed());
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            role,
            name: name.to_owned(),
        })
    }
}

impl Identity {
    /// The identity in a certificate that TLS has verified.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(IdentityError::Certificate)?;
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| &extension.value.general_names)
            .ok_or(IdentityError::Missing)?;
        names
            .iter()
            .find_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with("godwit://") => Some(uri.parse()),
                _ => None,
            })
            .unwrap_or(Err(IdentityError::Missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_a_crooked_one_is_refused() {
        let identity: Identity = "godwit://blue/host/a-1".parse().unwrap();
        assert_eq!(identity.to_string(), "godwit://blue/host/a-1");
        for bad in [
            "",
            "godwit://blue/host",
            "godwit://blue/root/a",
            "godwit://blue/host/a/b",
            "godwit:///host/a",
            "spiffe://blue/host/a",
            "godwit://blue/host/..",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }
}
