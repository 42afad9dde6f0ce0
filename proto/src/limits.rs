//! How large and how long anything on the wire may be. A peer that exceeds one is refused
//! before memory is taken for it.

use std::time::Duration;

/// A message that carries documents (gRPC's own default).
pub const MESSAGE: usize = 4 << 20;
/// What of a Raft message goes in one part. Together with its frame it fits into [`MESSAGE`].
pub const RAFT_PART: usize = 1 << 20;
/// A Raft message, all parts together: a snapshot of the state is the largest.
pub const RAFT_MESSAGE: usize = 256 << 20;
/// The bytes of one chunk of an image, a log or a checkpoint.
pub const CHUNK: usize = 256 << 10;
/// TCP connect and TLS handshake together.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer that does not even acknowledge for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(6);
/// How long a new process waits for a port that one before it has not given back yet.
pub const OLD_PORT: Duration = Duration::from_secs(3);
/// How often an agent reports when nothing changes.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// A session that was silent this long is over.
pub const SESSION_TIMEOUT: Duration = Duration::from_millis(2500);
