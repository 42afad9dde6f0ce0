//! Images on this host: what people order of them, registries, and other agents.
//!
//! ```text
//! HostService ──order──▶ orders ─┬─▶ pull ─┬─▶ endpoint  where to ask (pure)
//!                                │         ├─▶ registry  oci-client
//!                                │         ├─▶ peers     another agent's blobs
//!                                │         └─▶ fetch ──▶ runtime's store
//!                                └─▶ push
//! other agents ──▶ peers::Service
//! ```
//!
//! The store itself, what it unpacks and what it removes is `godwit_runtime::image`.

pub mod config;
mod endpoint;
mod error;
mod fetch;
mod news;
mod orders;
pub mod peers;
mod pull;
mod push;
mod registry;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use godwit_runtime::{
    Runtime,
    image::{Pin, Store},
};
use godwit_types::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use config::{ImagesConfig, ImagesConfigError};
pub use orders::{bring, carry_out, save};

/// How long what was brought is kept from being pruned before anything uses it.
const KEEP: Duration = Duration::from_secs(60);

/// What all orders on this host share.
pub struct Images {
    pub config: ImagesConfig,
    runtime: Runtime,
    downloads: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Blobs that somebody is at.
    at_work: Mutex<HashMap<Digest, std::sync::Weak<tokio::sync::Mutex<()>>>>,
    kept: Mutex<Vec<Kept>>,
}

impl Images {
    pub fn new(config: ImagesConfig, runtime: Runtime) -> Self {
        Self {
            downloads: Arc::new(Semaphore::new(config.max_concurrent_downloads)),
            uploads: Arc::new(Semaphore::new(config.max_concurrent_uploads)),
            config,
            runtime,
            at_work: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    fn store(&self) -> Store {
        self.runtime.images().clone()
    }

    /// One for each blob, while anybody holds it.
    fn blob_lock(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = at_work.get(digest).and_then(std::sync::Weak::upgrade) {
            return lock;
        }
        at_work.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::default());
        at_work.insert(digest.clone(), Arc::downgrade(&lock));
        lock
    }

    async fn download_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.downloads.clone().acquire_owned().await.ok()
    }

    async fn upload_turn(&self) -> Option<OwnedSemaphorePermit> {
        self.uploads.clone().acquire_owned().await.ok()
    }

    /// An image that was brought for a container is not pruned before that is made.
    fn keep_for_a_while(&self, image: &Digest, pin: Pin) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.since.elapsed() < KEEP);
        kept.push(Kept {
            since: Instant::now(),
            image: image.clone(),
            _pin: pin,
        });
    }

    /// A container of this image was made, or could not be.
    pub fn made(&self, image: &Digest) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.image != *image);
    }

    /// Lets go of what was kept long enough; to be called before anything is removed.
    fn release_kept(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|kept| kept.since.elapsed() < KEEP);
    }
}

struct Kept {
    since: Instant,
    image: Digest,
    _pin: Pin,
}
