//! What members ask: the gRPC edge of builds, imports and commits.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use godwit_proto::{
    agent::HostCommitRequest, control::AuthorChunk, document, failure::failed,
    v1::Document as Message,
};
use godwit_runtime::{
    RuntimeError,
    build::{Arguments, BuildFault, Key, Stage, changes},
    image::{
        Store,
        author::{Authored, Document, Event},
    },
};
use godwit_types::{
    BuildEvent, BuildRequest, CommandFailure, CommitRequest, ContainerId, FailureKind, ImageName,
    ImageSummary, ImportRequest,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::{
    error::BuildError,
    job::{self, Cancel, Said},
    receive,
};
use crate::{failures, host::Host};

/// Events between a build and its connection.
const AHEAD: usize = 64;

pub type Events = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;

/// Starts a build and answers what it says. It ends when nobody listens any more.
pub async fn build(host: Arc<Host>, chunks: Streaming<AuthorChunk>) -> Result<Events, Status> {
    let (request, context) = receive::open::<BuildRequest>(chunks).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (events, mut said) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(AHEAD));
    let saying = Said {
        events,
        room: room.clone(),
    };
    let cancel = Cancel::default();
    let building = tokio::spawn(job::build(
        host.clone(),
        request,
        context,
        cancel.clone(),
        saying,
    ));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                event = said.recv() => match event {
                    Some(event) => {
                        if sender.send(Ok(document::write(&event))).await.is_err() {
                            cancel.cancel();
                        }
                        if matches!(event, BuildEvent::Output { .. }) {
                            room.add_permits(1);
                        }
                    }
                    // The build has ended, and all it said is sent.
                    None => break,
                },
                () = sender.closed() => {
                    cancel.cancel();
                    break;
                }
            }
        }
        let built = match building.await {
            Ok(built) => built,
            Err(error) => {
                let status = Status::internal(error.to_string());
                let _ = sender.send(Err(status)).await;
                return;
            }
        };
        host.refresh_images().await;
        let last = conclude(&host, built);
        let _ = sender.send(last).await;
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn conclude(host: &Host, built: Result<ImageSummary, BuildError>) -> Result<Message, Status> {
    match built {
        Ok(image) => {
            info!(image = image.id.short(), names = ?image.names, "image built");
            Ok(document::write(&BuildEvent::Built {
                host: host.name.clone(),
                image: Box::new(image),
            }))
        }
        Err(error) => {
            let failure = match &error {
                // Its place is in the Dockerfile, and no host's matter.
                BuildError::Dockerfile(_) | BuildError::Exit { .. } => error.failure(),
                _ => failures::on_host(&host.name, error.failure()),
            };
            warn!(error = %failure, "build failed");
            Err(failed(failure))
        }
    }
}

/// Makes a root file system an image.
pub async fn import(host: Arc<Host>, chunks: Streaming<AuthorChunk>) -> Result<Message, Status> {
    let (request, archive) = receive::open::<ImportRequest>(chunks).await?;
    let store = host.runtime.images().clone();
    let imported = on_disk(move || {
        let layer = store.author_root(archive)?;
        let event = Event {
            created: rfc3339(Some(request.created)),
            comment: match request.message.is_empty() {
                true => "Imported from -".to_owned(),
                false => request.message.clone(),
            },
            ..Event::default()
        };
        register(
            &store,
            Document::empty(),
            &layer,
            &event,
            &request.changes,
            request.name,
        )
    })
    .await?;
    answer(&host, imported, "image imported").await
}

/// Makes what a container changed an image.
pub async fn commit(host: Arc<Host>, request: HostCommitRequest) -> Result<Message, Status> {
    let container: ContainerId = request
        .container
        .parse()
        .map_err(|error: godwit_types::IdError| Status::invalid_argument(error.to_string()))?;
    let request: CommitRequest = document::read_field(request.request)?;
    // First, since the container may have to stand still for the rest.
    if let Err(fault) = changes("--change", 1, &request.changes) {
        return Err(refused(&host, &fault));
    }
    let committed = {
        let _held = host.exclusive.take(&container).await;
        host.runtime.author_running(&container, request.pause).await
    };
    let committed = match committed {
        Ok((spec, layer)) => {
            let store = host.runtime.images().clone();
            on_disk(move || {
                let base = store.editable(&spec.image_id)?;
                let event = Event {
                    created: rfc3339(None),
                    created_by: spec.command.join(" "),
                    comment: request.message.clone(),
                    author: request.author.clone(),
                };
                register(&store, base, &layer, &event, &request.changes, request.name)
            })
            .await?
        }
        Err(error) => Err(Failed::Runtime(error)),
    };
    answer(&host, committed, "container committed").await
}

/// Why an import or a commit failed.
#[derive(Debug)]
enum Failed {
    Runtime(RuntimeError),
    Change(BuildFault),
}

impl<T: Into<RuntimeError>> From<T> for Failed {
    fn from(error: T) -> Self {
        Self::Runtime(error.into())
    }
}

fn register(
    store: &Store,
    document: Document,
    layer: &Authored,
    event: &Event,
    texts: &[String],
    name: Option<ImageName>,
) -> Result<ImageSummary, Failed> {
    let document_fault =
        |error| Failed::from(godwit_runtime::image::author::AuthorError::from(error));
    let mut stage = Stage::new(document, Key::begin("change"), '\\');
    for instruction in changes("--change", 1, texts).map_err(Failed::Change)? {
        let applied = stage.apply(&instruction, &Arguments::default());
        let applied = applied.map_err(|fault| Failed::Change(fault.at("--change", 1)))?;
        if !applied {
            let problem = godwit_runtime::build::Refused::Unsupported {
                flag: instruction.text.clone(),
                instead: "only what changes the configuration can be given here",
            };
            return Err(Failed::Change(problem.at("--change", 1)));
        }
    }
    let mut document = stage.document;
    document
        .push_layer(&layer.diff_id, event)
        .map_err(document_fault)?;
    if !event.author.is_empty() {
        document.set_author(&event.author);
    }
    let names: Vec<_> = name.into_iter().collect();
    Ok(store.register(&document, &names)?)
}

async fn answer(
    host: &Host,
    made: Result<ImageSummary, Failed>,
    what: &'static str,
) -> Result<Message, Status> {
    match made {
        Ok(image) => {
            info!(image = image.id.short(), names = ?image.names, "{what}");
            host.refresh_images().await;
            Ok(document::write(&image))
        }
        Err(Failed::Change(fault)) => Err(refused(host, &fault)),
        Err(Failed::Runtime(error)) => {
            let failure = failures::on_host(&host.name, failures::of_runtime(&error));
            warn!(error = %failure, "image not made");
            Err(failed(failure))
        }
    }
}

fn refused(host: &Host, fault: &BuildFault) -> Status {
    let failure = CommandFailure::new(FailureKind::WrongState, fault.to_string());
    failed(failures::on_host(&host.name, failure))
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))
}

/// A time in seconds since 1970, or now.
pub fn rfc3339(seconds: Option<i64>) -> String {
    godwit_runtime::image::author::rfc3339(seconds)
}
