//! One blob from wherever it can be had into the store.
//!
//! Memory is bounded by the chunks between the connection and the thread that hashes and writes.
//! A source that breaks off is asked again for the rest; one that lies is left for the next.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use godwit_proto::failure::chain;
use godwit_runtime::image::{ImageError, Ingest};
use godwit_types::{BlobPart, HostName, LayerStep};
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

use super::{Images, error::ImagesError, news::Teller, peers::Peer, registry::Registry};

/// Chunks on their way to the disk.
const AHEAD: usize = 8;
/// Attempts that bring next to nothing, from one source.
const ATTEMPTS: u32 = 3;
/// Bytes that make an attempt worth another: one that gives a few at a time would go on for ever.
const WORTH: u64 = 64 << 10;
const PAUSE: Duration = Duration::from_millis(300);
/// How often a blob that another process writes is looked at.
const LOOK: Duration = Duration::from_millis(200);
const TELL: Duration = Duration::from_millis(100);

/// Who may have a blob.
#[derive(Clone)]
pub enum Source {
    Registry(Arc<Registry>),
    Peer(Arc<Peer>),
}

type Stream = BoxStream<'static, Result<Bytes, String>>;

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Registry(registry) => format!("registry `{}`", registry.name),
            Self::Peer(peer) => format!("host `{}`", peer.host),
        }
    }

    fn host(&self) -> Option<HostName> {
        match self {
            Self::Registry(_) => None,
            Self::Peer(peer) => Some(peer.host.clone()),
        }
    }

    async fn open(&self, part: &BlobPart, offset: u64) -> Result<(u64, Stream), String> {
        match self {
            Self::Registry(registry) => registry
                .blob(&part.digest, offset)
                .await
                .map_err(|error| chain(&error)),
            Self::Peer(peer) => peer.blob(&part.digest, offset).await,
        }
    }
}

/// Brings a blob, unless it is here. The sources are asked in order.
pub async fn blob(
    images: &Images,
    part: &BlobPart,
    sources: &[Source],
    teller: &Teller,
) -> Result<(), ImagesError> {
    let told = |step, done, from| teller.layer(part, step, done, from);
    if images.store().has_blob(&part.digest) {
        told(LayerStep::Exists, part.size, None).await;
        return Ok(());
    }
    told(LayerStep::Waiting, 0, None).await;
    // Who comes second finds it done.
    let lock = images.blob_lock(&part.digest);
    let _alone = lock.lock().await;
    if images.store().has_blob(&part.digest) {
        told(LayerStep::Exists, part.size, None).await;
        return Ok(());
    }
    let _turn = images.download_turn().await;
    let mut ingest = loop {
        let (store, digest, size) = (images.store(), part.digest.clone(), part.size);
        match blocking(move || store.ingest(&digest, size)).await? {
            Some(ingest) => break ingest,
            None if images.store().has_blob(&part.digest) => return Ok(()),
            None => tokio::time::sleep(LOOK).await,
        }
    };
    let mut tried = Vec::new();
    for source in sources {
        match from(source, part, ingest, teller).await? {
            Poured::Whole(whole) => match blocking(move || whole.finish()).await {
                Ok(()) => {
                    told(LayerStep::Downloaded, part.size, source.host()).await;
                    return Ok(());
                }
                Err(error @ ImageError::Digest { .. }) => {
                    tried.push(format!("{}: {}", source.name(), chain(&error)));
                    let (store, digest, size) = (images.store(), part.digest.clone(), part.size);
                    let again = blocking(move || store.ingest(&digest, size)).await?;
                    match again {
                        Some(again) => ingest = again,
                        None => break,
                    }
                }
                Err(error) => return Err(error.into()),
            },
            Poured::Not(left, reason) => {
                debug!(
                    blob = part.digest.short(),
                    from = source.name(),
                    reason,
                    "not whole"
                );
                tried.push(format!("{}: {reason}", source.name()));
                ingest = left;
            }
        }
    }
    Err(ImagesError::Blob {
        digest: part.digest.clone(),
        tried,
    })
}

enum Poured {
    Whole(Ingest),
    /// Why not.
    Not(Ingest, String),
}

/// Takes what one source gives. An error is of this host.
async fn from(
    source: &Source,
    part: &BlobPart,
    mut ingest: Ingest,
    teller: &Teller,
) -> Result<Poured, ImagesError> {
    let mut reason = String::new();
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        if ingest.have() == part.size {
            return Ok(Poured::Whole(ingest));
        }
        if attempts > 0 {
            tokio::time::sleep(PAUSE * attempts).await;
        }
        attempts += 1;
        let before = ingest.have();
        match source.open(part, before).await {
            Err(error) => reason = error,
            Ok((start, stream)) => {
                if start != before {
                    ingest = blocking(move || ingest.restart().map(|()| ingest)).await?;
                }
                let (back, ended) = pour(ingest, stream, part, source, teller).await;
                ingest = back;
                match ended {
                    Ended::Broke(text) => reason = text,
                    Ended::Early if ingest.have() < part.size => {
                        reason = format!("it ended after {} of {} bytes", ingest.have(), part.size);
                    }
                    Ended::Early => {}
                    Ended::Failed(error @ ImageError::Size { .. }) => {
                        return Ok(Poured::Not(ingest, chain(&error)));
                    }
                    Ended::Failed(error) => return Err(error.into()),
                }
                if ingest.have() >= before + WORTH {
                    // It gives something: it may go on.
                    attempts = 1;
                }
            }
        }
    }
    if ingest.have() == part.size {
        return Ok(Poured::Whole(ingest));
    }
    Ok(Poured::Not(ingest, reason))
}

enum Ended {
    /// The stream did.
    Early,
    Broke(String),
    /// This host could not take it.
    Failed(ImageError),
}

async fn pour(
    mut ingest: Ingest,
    mut stream: Stream,
    part: &BlobPart,
    source: &Source,
    teller: &Teller,
) -> (Ingest, Ended) {
    let mut done = ingest.have();
    let (sender, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
    let writer = tokio::task::spawn_blocking(move || {
        while let Some(bytes) = receiver.blocking_recv() {
            if let Err(error) = ingest.write(&bytes) {
                return (ingest, Some(error));
            }
        }
        (ingest, None)
    });
    let mut told: Option<Instant> = None;
    let mut broke = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(bytes) => {
                done += bytes.len() as u64;
                // The writer says why it takes no more.
                if sender.send(bytes).await.is_err() {
                    break;
                }
            }
            Err(error) => {
                broke = Some(error);
                break;
            }
        }
        if told.is_none_or(|told| told.elapsed() > TELL) {
            told = Some(Instant::now());
            teller.progress(
                part,
                LayerStep::Downloading,
                done.min(part.size),
                source.host(),
            );
        }
    }
    drop(sender);
    let (ingest, failed) = match writer.await {
        Ok(written) => written,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let ended = match (failed, broke) {
        (Some(error), _) => Ended::Failed(error),
        (None, Some(reason)) => Ended::Broke(reason),
        (None, None) => Ended::Early,
    };
    (ingest, ended)
}

/// Work that waits for a disk.
pub async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
