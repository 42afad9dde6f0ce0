//! A door to the cluster: a member over TLS, or the socket of a daemon on this machine.

use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use godwit_proto::{
    config::MemberAddress,
    tls::{self, Role, Target},
};
use rustls::ClientConfig;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tonic::transport::Channel;

/// How long one may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) enum Door {
    Member {
        member: MemberAddress,
        cluster: String,
        tls: Arc<ClientConfig>,
    },
    Socket(PathBuf),
}

impl Door {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Member { member, .. } => member.name.to_string(),
            Self::Socket(_) => "local socket".to_owned(),
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::Member { member, .. } => member.address.clone(),
            Self::Socket(path) => path.display().to_string(),
        }
    }

    /// A bare connection first: a machine that is gone is found out sooner than by a TLS
    /// handshake's time limit.
    pub(crate) async fn open(&self) -> Result<Channel, String> {
        let connected = async {
            match self {
                Self::Member { member, .. } => TcpStream::connect(&member.address).await.map(drop),
                Self::Socket(path) => UnixStream::connect(path).await.map(drop),
            }
        };
        timeout(CONNECT, connected)
            .await
            .map_err(|_| format!("no answer in {} s", CONNECT.as_secs()))?
            .map_err(|error| error.kind().to_string())?;
        Ok(match self {
            Self::Member {
                member,
                cluster,
                tls,
            } => {
                let target = Target {
                    address: member.address.clone(),
                    cluster: cluster.clone(),
                    role: Role::Member,
                    name: Some(member.name.to_string()),
                };
                tls::channel(tls.clone(), target)
            }
            Self::Socket(path) => tls::local_channel(path.clone()),
        })
    }
}

/// A socket as it is typed: `unix:///run/godwit/godwit.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local(PathBuf);

impl Local {
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The one that daemons serve by default, if this user may open it.
    pub fn usual() -> Option<Self> {
        let path = Path::new("/run/godwit/godwit.sock");
        let open = std::os::unix::net::UnixStream::connect(path);
        match open {
            Ok(_) => Some(Self(path.into())),
            // It is there, and the message should say so.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some(Self(path.into()))
            }
            Err(_) => None,
        }
    }
}

impl FromStr for Local {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self(path.into())),
            _ => {
                Err("it is not unix:///PATH; a cluster is reached over TLS with `--config`".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_by_its_whole_path_is_taken() {
        let local: Local = "unix:///run/x.sock".parse().unwrap();
        assert_eq!(local.path(), Path::new("/run/x.sock"));
        for bad in ["unix://x", "tcp://10.0.0.1:2375", "/run/x.sock", ""] {
            assert!(bad.parse::<Local>().is_err(), "{bad}");
        }
    }
}
