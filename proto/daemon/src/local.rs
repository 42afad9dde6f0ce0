//! The socket on a machine itself, for `godwit --host unix://…`: who may open it acts with the admin
//! credentials that the operator put beside the daemon. Bytes are passed on to a member as they are,
//! so that every call works that works over TLS.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use godwit_proto::{
    config::{self, AdminConfig, ConfigError},
    tls::{self, Credentials, CredentialsError, Identity, Role, Target},
};
use nix::unistd::Group;
use rustls::ClientConfig;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
};
use tracing::{debug, info, warn};

#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("certificate in `{dir}` is for `{identity}`, not for an admin")]
    NotAdmin { dir: PathBuf, identity: Identity },
    #[error("`{0}` names no member")]
    NoMembers(PathBuf),
    #[error("can't serve `{path}`")]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Where it is, and who may open it beside root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub socket: PathBuf,
    pub group: String,
    /// The `admin` directory of `godwit cluster init`.
    pub admin: PathBuf,
}

/// Listens from when it is made; passes on once it is [served](Local::serve).
pub struct Local {
    listener: UnixListener,
    upstream: Arc<Upstream>,
    path: PathBuf,
}

struct Upstream {
    tls: Arc<ClientConfig>,
    members: Vec<Target>,
}

impl Local {
    /// Takes the place of a socket that a daemon before left. Must be called inside of tokio.
    pub fn open(options: &Options) -> Result<Self, LocalError> {
        let admin: AdminConfig = config::load(&options.admin)?;
        let credentials = Credentials::load(&options.admin)?;
        let identity = credentials.identity()?;
        if identity.role != Role::Admin {
            return Err(LocalError::NotAdmin {
                dir: options.admin.clone(),
                identity,
            });
        }
        if admin.members.is_empty() {
            return Err(LocalError::NoMembers(options.admin.clone()));
        }
        let members = admin.members.into_iter().map(|member| Target {
            address: member.address,
            cluster: identity.cluster.clone(),
            role: Role::Member,
            name: Some(member.name.to_string()),
        });
        let listener = bind(options).map_err(|source| LocalError::Socket {
            path: options.socket.clone(),
            source,
        })?;
        Ok(Self {
            listener,
            upstream: Arc::new(Upstream {
                tls: credentials.client_config()?,
                members: members.collect(),
            }),
            path: options.socket.clone(),
        })
    }

    /// For ever.
    pub async fn serve(self) {
        loop {
            let client = match self.listener.accept().await {
                Ok((client, _)) => client,
                Err(error) => {
                    // Out of descriptors, most likely: give others time to end.
                    warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            match client.peer_cred() {
                Ok(peer) => info!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    pid = peer.pid(),
                    "local client"
                ),
                Err(error) => {
                    warn!(%error, "local client refused: nobody says who it is");
                    continue;
                }
            }
            let upstream = self.upstream.clone();
            tokio::spawn(async move {
                if let Err(error) = upstream.pass_on(client).await {
                    debug!(%error, "local connection ended");
                }
            });
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Upstream {
    /// To the first member that answers. What it is asked it passes on to the leader itself.
    async fn pass_on(&self, mut client: UnixStream) -> io::Result<()> {
        let mut last = None;
        for member in &self.members {
            match tls::dial(self.tls.clone(), member).await {
                Ok(mut member) => {
                    copy_bidirectional(&mut client, &mut member).await?;
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

/// 0660 for the group, or 0600 where there is no such group.
fn bind(options: &Options) -> io::Result<UnixListener> {
    let path = &options.socket;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    remove_stale(path)?;
    // Under another name until its owner and mode are right: nobody may come before.
    let making = path.with_extension("making");
    remove_stale(&making)?;
    let listener = UnixListener::bind(&making)?;
    let group = Group::from_name(&options.group)?;
    let mode = match group {
        Some(group) => {
            chown(&making, None, Some(group.gid.as_raw()))?;
            0o660
        }
        None => {
            warn!(
                group = options.group,
                "no such group: the local socket is for root alone"
            );
            0o600
        }
    };
    fs::set_permissions(&making, fs::Permissions::from_mode(mode))?;
    fs::rename(&making, path)?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is something else than a socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
