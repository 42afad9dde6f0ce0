//! Work that ends with the lead: everything a leader does runs in its scope, and all of it is
//! dropped where it waits when the scope closes.

use std::future::Future;

use tokio::sync::watch;

/// Closes the scope when it is dropped, or before.
pub struct Owner(watch::Sender<bool>);

/// A handle for starting work in the scope.
#[derive(Clone)]
pub struct Scope(watch::Receiver<bool>);

pub fn open() -> (Owner, Scope) {
    let (sender, receiver) = watch::channel(false);
    (Owner(sender), Scope(receiver))
}

impl Owner {
    pub fn close(&self) {
        self.0.send_replace(true);
    }
}

impl Scope {
    /// Waits until the scope is closed.
    pub async fn closed(&self) {
        let mut receiver = self.0.clone();
        // An error says that the owner is gone: closed as well.
        let _ = receiver.wait_for(|closed| *closed).await;
    }

    /// Runs beside the caller until it is done or the scope closes.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let scope = self.clone();
        tokio::spawn(async move {
            let _ = scope.run(work).await;
        });
    }

    /// Runs in the caller; None: the scope closed first.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.closed() => None,
            result = work => Some(result),
        }
    }
}
