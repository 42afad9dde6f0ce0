//! Orders as they come, and what they end with.

use std::{io, sync::Arc};

use bytes::Bytes;
use godwit_types::{
    ByteSize, CommandFailure, ImageName, ImageNews, ImageOrder, ImagePeer, InstanceState, Outcome,
};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{
    Images,
    endpoint::target,
    error::ImagesError,
    fetch::blocking,
    news::Teller,
    pull::{self, Pulled, Wanted},
    push,
};
use crate::{failures, host::Host, ledger::Answer};

/// News on their way to whoever ordered.
const AHEAD: usize = 64;
/// Chunks of a saved archive.
const SAVED: usize = 8;
const CHUNK: usize = 256 << 10;

/// Does what is ordered, and says how it goes. It is given up when nobody listens any more.
pub fn carry_out(host: Arc<Host>, order: ImageOrder) -> mpsc::Receiver<ImageNews> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let teller = Teller::new(sender.clone());
        let done = tokio::select! {
            done = order_done(&host, order, &teller) => done,
            () = sender.closed() => return,
        };
        let news = done.unwrap_or_else(|error| {
            let failure = failures::on_host(&host.name, error.failure());
            warn!(error = %failure, "order about images failed");
            ImageNews::Failed { failure }
        });
        host.refresh_images().await;
        let _ = sender.send(news).await;
    });
    receiver
}

async fn order_done(
    host: &Arc<Host>,
    order: ImageOrder,
    teller: &Teller,
) -> Result<ImageNews, ImagesError> {
    let images = &host.images;
    let store = images.store();
    match order {
        ImageOrder::Pull {
            reference,
            platform,
            credentials,
            peers,
        } => {
            let wanted = Wanted {
                reference,
                platform,
                credentials,
                peers,
            };
            pull::pull(host, &wanted, teller).await.map(pulled)
        }
        ImageOrder::Bring {
            image,
            names,
            peers,
        } => pull::bring(host, &image, &names, &peers, teller, false)
            .await
            .map(pulled),
        ImageOrder::Push {
            image,
            to,
            credentials,
        } => push::push(images, &image, &to, credentials.as_ref(), teller).await,
        ImageOrder::Login {
            registry,
            credentials,
        } => {
            let name = registry.map_or("x".to_owned(), |registry| format!("{registry}/x"));
            let no = || ImagesError::NoRegistry(name.clone());
            let reference = name.parse().map_err(|_| no())?;
            let endpoint = target(&images.config, &reference).ok_or_else(no)?;
            let registry = pull::reach(images, &endpoint, Some(&credentials), false).await?;
            registry
                .ping()
                .await
                .map_err(|source| ImagesError::Registry {
                    registry: endpoint.registry,
                    source,
                })?;
            Ok(ImageNews::LoggedIn)
        }
        ImageOrder::Tag { image, name } => {
            let tagged = name.clone();
            let image = blocking(move || store.tag(&image, &name)).await?;
            Ok(ImageNews::Tagged {
                image,
                name: tagged,
            })
        }
        ImageOrder::Remove { image, force } => {
            images.release_kept();
            Ok(removed(images.runtime.remove_image(&image, force).await?))
        }
        ImageOrder::Prune { all } => {
            images.release_kept();
            Ok(removed(images.runtime.prune_images(all).await?))
        }
        ImageOrder::Inspect { image } => {
            let detail = blocking(move || store.detail(&image)).await?;
            Ok(ImageNews::Inspected {
                image: Box::new(detail),
            })
        }
        ImageOrder::Usage => {
            let instances = host.board.instances().into_iter();
            let running = instances
                .filter(|line| {
                    !matches!(
                        line.state,
                        InstanceState::Exited { .. } | InstanceState::Lost { .. }
                    )
                })
                .map(|line| line.container);
            let usage = images.runtime.store_usage(running.collect()).await?;
            Ok(ImageNews::Used {
                usage: Box::new(usage),
            })
        }
    }
}

fn pulled(pulled: Pulled) -> ImageNews {
    ImageNews::Pulled {
        image: pulled.image,
        digest: pulled.digest,
        fresh: pulled.fresh,
    }
}

fn removed(freed: godwit_runtime::image::Freed) -> ImageNews {
    info!(
        images = freed.deleted.len(),
        bytes = freed.bytes,
        "images removed"
    );
    ImageNews::Removed {
        untagged: freed.untagged,
        deleted: freed.deleted,
        freed: ByteSize(freed.bytes),
    }
}

/// For a container that is to run here.
pub async fn bring(
    host: &Arc<Host>,
    image: &godwit_types::Digest,
    names: &[ImageName],
    peers: &[ImagePeer],
) -> Answer {
    let brought = pull::bring(host, image, names, peers, &Teller::silent(), true).await;
    let answer = brought.map(|_| Outcome::Done);
    host.refresh_images().await;
    answer.map_err(|error| error.failure())
}

/// Images as one archive, chunk by chunk.
pub async fn save(
    images: &Images,
    queries: Vec<String>,
) -> Result<mpsc::Receiver<io::Result<Bytes>>, CommandFailure> {
    let store = images.store();
    let selecting = store.clone();
    let selection = blocking(move || selecting.select(&queries)).await;
    let selection = selection.map_err(|error| ImagesError::from(error).failure())?;
    let (sender, receiver) = mpsc::channel(SAVED);
    tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(CHUNK, Sending(sender.clone()));
        if let Err(error) = store.save(&selection, &mut out) {
            let text = godwit_proto::failure::chain(&error);
            let _ = sender.blocking_send(Err(io::Error::other(text)));
        }
    });
    Ok(receiver)
}

struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(chunk)))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
