//! What can go wrong between the command line and the cluster.

use std::{error::Error, fmt, path::PathBuf};

use godwit_proto::{
    config::ConfigError,
    document::DocumentError,
    failure::{self, Problem},
    tls::{CredentialsError, Role},
};
use tonic::{Code, Status};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("there is no cluster configuration in `{dir}`")]
    NoConfig { dir: PathBuf },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("the credentials in `{dir}` are of a {}, not of an admin", .role.as_str())]
    Role { dir: PathBuf, role: Role },
    #[error("`{dir}` names no members")]
    NoMembers { dir: PathBuf },
    #[error("no member answers: {}", list(.tried))]
    Unreachable { tried: Vec<Tried> },
    /// The cluster answered, and the answer is no.
    #[error(transparent)]
    Answer(#[from] Answer),
    /// The connection was there and broke: whether the request was carried out is not known.
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("member `{member}` sent what can't be read")]
    Document {
        member: String,
        #[source]
        source: DocumentError,
    },
    #[error("the stream ended before the first word on the migration")]
    NoMigration,
    #[error("no member `{member}`")]
    NoMember { member: String },
}

/// A member that could not be reached, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub member: String,
    pub address: String,
    pub reason: String,
}

fn list(tried: &[Tried]) -> String {
    tried
        .iter()
        .map(|tried| format!("`{}` at {} ({})", tried.member, tried.address, tried.reason))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A status that the cluster sent.
#[derive(Debug)]
pub struct Answer {
    pub code: Code,
    pub problem: Option<Problem>,
    message: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "the cluster answered: {}", self.code)
        } else {
            f.write_str(&self.message)
        }
    }
}

impl Error for Answer {}

/// A status that tonic made of an error on our side of the connection.
#[derive(Debug)]
pub struct Broken {
    pub member: String,
    status: Status,
}

impl Broken {
    /// The member refused our certificate: another attempt would end the same way. TLS 1.3 lets
    /// a client finish its handshake before the server has looked at the certificate, so this
    /// arrives as a broken connection.
    pub fn is_refused_certificate(&self) -> bool {
        failure::chain(&self.status).contains("fatal alert")
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection to member `{}` broke", self.member)
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.status.source()
    }
}

impl ClientError {
    /// Sorts a status of a call to this member.
    pub fn of_status(member: &str, status: Status) -> Self {
        // Statuses from the wire have no source; those that tonic makes of its own errors have.
        if status.source().is_some() {
            return Self::Broken(Broken {
                member: member.to_owned(),
                status,
            });
        }
        Self::Answer(Answer {
            code: status.code(),
            problem: failure::problem(&status),
            message: status.message().to_owned(),
        })
    }

    /// Whether the same call may go well in a moment: there is no leader yet, or it changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Answer(answer) => {
                answer.problem.is_none() && matches!(answer.code, Code::Unavailable | Code::Aborted)
            }
            Self::Broken(broken) => !broken.is_refused_certificate(),
            _ => false,
        }
    }

    /// What the cluster said, if it is the cluster's answer and carries a reason.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Answer(answer) => answer.problem.as_ref(),
            _ => None,
        }
    }
}

/// Whether the request never left: no connection could be made.
pub fn is_unconnected(status: &Status) -> bool {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use godwit_types::{HostName, Refusal};

    use super::*;

    #[test]
    fn only_what_time_can_heal_is_tried_again() {
        let of = |status| ClientError::of_status("m1", status);
        assert!(of(Status::unavailable("no leader")).may_pass());
        assert!(!of(Status::not_found("x")).may_pass());
        let down = failure::refused(Refusal::HostDown {
            host: HostName::new("h1").unwrap(),
        });
        assert_eq!(down.code(), Code::Unavailable);
        assert!(!of(down).may_pass(), "a host that is down is an answer");
    }

    #[test]
    fn an_unreachable_cluster_is_named_member_by_member() {
        let tried = |member: &str| Tried {
            member: member.into(),
            address: "10.0.0.1:7400".into(),
            reason: "connection refused".into(),
        };
        let error = ClientError::Unreachable {
            tried: vec![tried("m1"), tried("m2")],
        };
        assert_eq!(
            error.to_string(),
            "no member answers: `m1` at 10.0.0.1:7400 (connection refused), \
             `m2` at 10.0.0.1:7400 (connection refused)"
        );
    }
}
