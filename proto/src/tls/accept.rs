//! A server's side: from a TCP listener to streams whose peer is known.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{Identity, socket};
use crate::limits;

/// Who is on the other end; every request carries it in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    pub identity: Identity,
    pub address: SocketAddr,
}

/// An accepted connection.
pub struct Accepted {
    stream: TlsStream<BufReader<TcpStream>>,
    peer: Peer,
}

impl Accepted {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What both agreed to speak, by its name of ALPN.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl Connected for Accepted {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Listens on this address. A process that was killed holds its port until all its threads are
/// gone, a moment longer than whoever starts the next one waits.
pub async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let until = Instant::now() + limits::OLD_PORT;
    loop {
        match TcpListener::bind(&address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
}

/// Accepts for ever. Handshakes run beside each other, so that a slow peer holds up nobody; one
/// that fails or takes too long is dropped and logged. `cluster` is ours: a certificate of
/// another one is refused even when the same authority signed it.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    cluster: String,
) -> ReceiverStream<io::Result<Accepted>> {
    let (sender, receiver) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        loop {
            let (stream, address) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: give others time to end.
                        warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = sender.closed() => return,
            };
            let (acceptor, sender, cluster) = (acceptor.clone(), sender.clone(), cluster.clone());
            tokio::spawn(async move {
                match timeout(
                    limits::HANDSHAKE,
                    accept(acceptor, stream, address, &cluster),
                )
                .await
                {
                    Ok(Ok(accepted)) => drop(sender.send(Ok(accepted)).await),
                    Ok(Err(reason)) => debug!(%address, %reason, "connection refused"),
                    Err(_) => debug!(%address, "handshake timed out"),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    cluster: &str,
) -> Result<Accepted, String> {
    let stream = socket::prepare(stream).map_err(|error| error.to_string())?;
    let stream = acceptor
        .accept(stream)
        .await
        .map_err(|error| error.to_string())?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or("no client certificate")?;
    let identity = Identity::of_certificate(certificate).map_err(|error| error.to_string())?;
    if identity.cluster != cluster {
        return Err(format!(
            "`{identity}` is of another cluster than `{cluster}`"
        ));
    }
    Ok(Accepted {
        stream,
        peer: Peer { identity, address },
    })
}
