//! What every TCP connection of ours is set to.

use std::io;

use rustix::net::sockopt;
use tokio::{io::BufReader, net::TcpStream};

use crate::limits;

/// rustls asks for 4 KiB at a time.
const AT_ONCE: usize = 128 << 10;

/// No delay, and an end when the peer is silent: gRPC asks for itself, other protocols don't.
pub fn prepare(stream: TcpStream) -> io::Result<BufReader<TcpStream>> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, limits::SILENCE / 3)?;
    sockopt::set_tcp_keepintvl(&stream, limits::SILENCE / 3)?;
    sockopt::set_tcp_keepcnt(&stream, 2)?;
    sockopt::set_tcp_user_timeout(&stream, limits::SILENCE.as_millis() as u32)?;
    Ok(BufReader::with_capacity(AT_ONCE, stream))
}
