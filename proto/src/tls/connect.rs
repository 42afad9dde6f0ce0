//! A client's side: a channel to the one peer that was meant.

use std::{io, path::PathBuf, sync::Arc};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::BufReader,
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::{Identity, Role, socket};
use crate::limits;

/// Whom to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `address:port`
    pub address: String,
    pub cluster: String,
    pub role: Role,
    /// The name that the peer's certificate must carry; None: any of this role.
    pub name: Option<String>,
}

/// A connection whose peer is known.
pub type Dialed = TlsStream<BufReader<TcpStream>>;

/// Bytes that TLS encrypts ahead of the socket: a frame of memory goes there in one call.
const AHEAD: usize = 512 << 10;

// Of both channels the URI is only a label: `dial` reaches the target, and the scheme is `http`
// because TLS is ours, below tonic.

/// A channel that connects when it is first used and again whenever it broke.
pub fn channel(config: Arc<ClientConfig>, target: Target) -> Channel {
    endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (config, target) = (config.clone(), target.clone());
        async move { dial(config, &target).await.map(TokioIo::new) }
    }))
}

/// The same, connected already.
pub async fn connected(
    config: Arc<ClientConfig>,
    target: Target,
) -> Result<Channel, tonic::transport::Error> {
    let connector = service_fn(move |_: Uri| {
        let (config, target) = (config.clone(), target.clone());
        async move { dial(config, &target).await.map(TokioIo::new) }
    });
    endpoint().connect_with_connector(connector).await
}

/// A channel to a socket on this machine, whose daemon passes everything on over TLS.
pub fn local_channel(socket: PathBuf) -> Channel {
    endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }))
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://godwit.internal")
        .connect_timeout(limits::HANDSHAKE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(std::time::Duration::from_secs(2))
        .keep_alive_timeout(std::time::Duration::from_secs(4))
        .keep_alive_while_idle(true)
        // A checkpoint must not wait for window updates on a fast link.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
}

/// One connection that speaks something else than gRPC, by its name of ALPN.
pub async fn dial_as(
    config: &Arc<ClientConfig>,
    target: &Target,
    protocol: &[u8],
) -> io::Result<Dialed> {
    let mut config = ClientConfig::clone(config);
    config.alpn_protocols = vec![protocol.to_vec()];
    let mut stream = dial(Arc::new(config), target).await?;
    let (_, session) = stream.get_mut();
    if session.alpn_protocol() != Some(protocol) {
        let (name, at) = (protocol.escape_ascii(), &target.address);
        return Err(io::Error::other(format!("{at} does not speak {name}")));
    }
    session.set_buffer_limit(Some(AHEAD));
    Ok(stream)
}

/// One connection, its peer checked.
pub async fn dial(config: Arc<ClientConfig>, target: &Target) -> io::Result<Dialed> {
    let refuse = |kind, text: String| io::Error::new(kind, text);
    let connect = async {
        let stream = TcpStream::connect(&target.address).await?;
        let stream = socket::prepare(stream)?;
        let name = ServerName::try_from(target.role.dns_name())
            .map_err(|error| refuse(io::ErrorKind::InvalidInput, error.to_string()))?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = timeout(limits::HANDSHAKE, connect).await.map_err(|_| {
        refuse(
            io::ErrorKind::TimedOut,
            format!("no answer from {} in 5 s", target.address),
        )
    })??;
    let identity = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| {
            refuse(
                io::ErrorKind::PermissionDenied,
                "no server certificate".into(),
            )
        })
        .and_then(|certificate| {
            Identity::of_certificate(certificate)
                .map_err(|error| refuse(io::ErrorKind::PermissionDenied, error.to_string()))
        })?;
    let expected = identity.cluster == target.cluster
        && identity.role == target.role
        && target
            .name
            .as_ref()
            .is_none_or(|name| *name == identity.name);
    if expected {
        Ok(stream)
    } else {
        Err(refuse(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is `{identity}`, not `godwit://{}/{}/{}`",
                target.address,
                target.cluster,
                target.role.as_str(),
                target.name.as_deref().unwrap_or("*"),
            ),
        ))
    }
}
