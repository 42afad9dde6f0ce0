//! What a daemon is told from outside, and what it tells whoever started it.

use std::io;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: end. SIGHUP: read the settings again.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// To be called inside of tokio, before the work begins.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Until it is told to end. `reload` is called for each SIGHUP.
    pub async fn ended(&mut self, mut reload: impl FnMut()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
                _ = self.hang_up.recv() => {
                    if let Ok(now) = NotifyState::monotonic_usec_now() {
                        tell(&[NotifyState::Reloading, now]);
                    }
                    reload();
                    tell(&[NotifyState::Ready]);
                }
            }
        }
        tell(&[NotifyState::Stopping]);
    }
}

/// Tells systemd, if it started this, that the work has begun.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager can't be told");
    }
}
