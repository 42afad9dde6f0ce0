//! The gRPC service `Transfer`: who may push, and what the pusher is told.

use std::{
    fs::File,
    io,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use godwit_proto::{
    authz,
    failure::{chain, failed},
    limits,
    transfer::{
        PostCopyChunk, PostCopyWord, PushChunk, PushReply, post_copy_chunk, post_copy_word,
        transfer_server::{Transfer, TransferServer},
    },
};
use godwit_runtime::{LAYER, VOLUME, checkpoint::Incoming, rootfs::diff::Mark};
use godwit_types::{CommandFailure, ContainerId, FailureKind, HostName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::{
    destination::{self, PushError, Sink},
    doors::{DoorError, Doors, Inside},
    protocol::Passage,
};
use crate::{failures, host::Host, ledger::Role, postcopy};

/// Makes the sink of a container.
pub trait Sinks: Send + Sync + 'static {
    type Sink: Sink;
    fn sink(&self, container: &ContainerId) -> Result<Self::Sink, CommandFailure>;
    /// Brings the container's writable layer, or one of its volumes, from `base` to what the part
    /// `name` makes of it that a sink took.
    fn apply(
        &self,
        container: &ContainerId,
        name: &str,
        base: Mark,
    ) -> impl Future<Output = Result<Mark, CommandFailure>> + Send;
    /// Where memory goes that this caller still has to bring, after the container was resumed
    /// here.
    fn late(
        &self,
        passage: &Passage,
        caller: &str,
    ) -> impl Future<Output = Result<Late, CommandFailure>> + Send;
}

/// See [`Sinks::late`].
pub enum Late {
    Pager(UnixStream),
    /// It has everything, or is not here any more.
    Whole,
}

/// See the module.
pub struct TransferService<S> {
    host: HostName,
    doors: Arc<Doors>,
    sinks: Arc<S>,
}

impl<S: Sinks> TransferService<S> {
    pub fn server(host: HostName, doors: Arc<Doors>, sinks: S) -> TransferServer<Self> {
        let sinks = Arc::new(sinks);
        TransferServer::new(Self { host, doors, sinks }).max_decoding_message_size(limits::MESSAGE)
    }

    fn turn_away(&self, passage: &Passage, caller: &str, error: &DoorError) -> Status {
        warn!(
            container = passage.container.short(),
            migration = %passage.migration,
            caller,
            %error,
            "refused"
        );
        match error {
            DoorError::Caller { .. } => Status::permission_denied(error.to_string()),
            _ => self.refuse(CommandFailure::new(
                FailureKind::WrongState,
                error.to_string(),
            )),
        }
    }

    /// Lets a caller in that was awaited.
    async fn admit(
        &self,
        request: Request<Streaming<PushChunk>>,
    ) -> Result<(Passage, Inside, S::Sink, Streaming<PushChunk>), Status> {
        let caller = authz::require(&request, authz::Service::Transfer)?;
        let mut chunks = request.into_inner();
        let passage = Passage::read(chunks.message().await?)
            .map_err(|error| Status::invalid_argument(chain(&error)))?;
        let inside = self
            .doors
            .enter(&passage, &caller.name)
            .await
            .map_err(|error| self.turn_away(&passage, &caller.name, &error))?;
        let sink = self
            .sinks
            .sink(&passage.container)
            .map_err(|failure| self.refuse(failure))?;
        Ok((passage, inside, sink, chunks))
    }

    fn refuse(&self, failure: CommandFailure) -> Status {
        failed(failures::on_host(&self.host, failure))
    }
}

#[tonic::async_trait]
impl<S: Sinks> Transfer for TransferService<S> {
    async fn push(
        &self,
        request: Request<Streaming<PushChunk>>,
    ) -> Result<Response<PushReply>, Status> {
        let (passage, inside, sink, chunks) = self.admit(request).await?;
        // In a task of its own: when the caller goes away this handler is dropped, but the door
        // must stay taken until the writer has let go of the files.
        let migration = passage.migration.clone();
        let container = passage.container.clone();
        let received = tokio::spawn(async move {
            let called_off = inside.called_off();
            let received = destination::receive(chunks, sink, called_off).await;
            match &received {
                Ok(bytes) => {
                    inside.complete();
                    info!(container = container.short(), %migration, bytes, "push complete");
                }
                Err(error) => warn!(
                    container = container.short(),
                    %migration,
                    error = chain(error),
                    "push failed"
                ),
            }
            received
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
        match received {
            Ok(bytes) => Ok(Response::new(PushReply { bytes })),
            Err(error) => Err(self.status(&error)),
        }
    }

    async fn layer(
        &self,
        request: Request<Streaming<PushChunk>>,
    ) -> Result<Response<PushReply>, Status> {
        let (passage, inside, sink, chunks) = self.admit(request).await?;
        let container = passage.container;
        let sinks = self.sinks.clone();
        // In a task of its own, as above: half of a part is never applied.
        let received = tokio::spawn(async move {
            let called_off = inside.called_off();
            let (sink, taken) = LayerSink::new(sink);
            let received = destination::receive(chunks, sink, called_off).await;
            let bytes = match received {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let name = taken.lock().expect("no holder panics").take();
            let Some(name) = name else {
                let text = "a part of a layer has one file";
                return Err(CommandFailure::new(FailureKind::Peer, text));
            };
            let base = inside.take_layer(&name);
            let mark = sinks.apply(&container, &name, base).await?;
            inside.set_layer(name, mark);
            Ok::<_, CommandFailure>(Ok(bytes))
        })
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
        match received {
            Ok(Ok(bytes)) => Ok(Response::new(PushReply { bytes })),
            Ok(Err(error)) => Err(self.status(&error)),
            Err(failure) => Err(self.refuse(failure)),
        }
    }
    type PostCopyStream = ReceiverStream<Result<PostCopyWord, Status>>;

    async fn post_copy(
        &self,
        request: Request<Streaming<PostCopyChunk>>,
    ) -> Result<Response<Self::PostCopyStream>, Status> {
        let caller = authz::require(&request, authz::Service::Transfer)?;
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|message| message.chunk);
        let Some(post_copy_chunk::Chunk::Open(opening)) = first else {
            return Err(Status::invalid_argument(
                "a post-copy does not begin with an open",
            ));
        };
        let passage =
            Passage::of(&opening).map_err(|error| Status::invalid_argument(chain(&error)))?;
        let late = self
            .sinks
            .late(&passage, &caller.name)
            .await
            .map_err(|failure| self.refuse(failure))?;
        let (words, replies) = mpsc::channel(16);
        tokio::spawn(async move {
            let pager = match late {
                Late::Pager(pager) => pager,
                Late::Whole => {
                    let word = Some(post_copy_word::Word::Whole(true));
                    let _ = words.send(Ok(PostCopyWord { word })).await;
                    return;
                }
            };
            if let Err(status) = postcopy::relay(chunks, pager, &words).await {
                warn!(
                    container = passage.container.short(),
                    migration = %passage.migration,
                    error = status.message(),
                    "memory that comes late was interrupted"
                );
                let _ = words.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

impl<S: Sinks> TransferService<S> {
    fn status(&self, error: &PushError) -> Status {
        let text = chain(error);
        match error {
            PushError::Order { .. }
            | PushError::Chunk(_)
            | PushError::Name(_)
            | PushError::Twice(_)
            | PushError::TooMany
            | PushError::Totals { .. } => Status::invalid_argument(text),
            PushError::Size { .. } | PushError::Hash(_) => Status::data_loss(text),
            PushError::Cut | PushError::Broken(_) | PushError::CalledOff => Status::aborted(text),
            PushError::NoRoom { .. } => self.refuse(CommandFailure::new(FailureKind::Unfit, text)),
            PushError::Write { .. } => {
                self.refuse(CommandFailure::new(FailureKind::Internal, text))
            }
        }
    }
}

/// The runtime's directories as sinks.
pub struct RuntimeSinks(pub Arc<Host>);

/// One container's directory.
pub struct RuntimeSink {
    incoming: Incoming,
    free: u64,
}

impl Sinks for RuntimeSinks {
    type Sink = RuntimeSink;
    fn sink(&self, container: &ContainerId) -> Result<RuntimeSink, CommandFailure> {
        let runtime = &self.0.runtime;
        let incoming = runtime
            .incoming(container)
            .map_err(|error| failures::of_runtime(&error))?;
        Ok(RuntimeSink {
            incoming,
            free: runtime.disk_free(),
        })
    }
    async fn apply(
        &self,
        container: &ContainerId,
        name: &str,
        base: Mark,
    ) -> Result<Mark, CommandFailure> {
        let applied = self.0.runtime.apply_layer(container, name, base).await;
        applied.map_err(|error| failures::of_runtime(&error))
    }
    async fn late(&self, passage: &Passage, caller: &str) -> Result<Late, CommandFailure> {
        let host = &self.0;
        let container = &passage.container;
        let refuse = |text: String| CommandFailure::new(FailureKind::WrongState, text);
        let (migration, from) = match host.arrivals.find(container) {
            Some(known) => known,
            // This agent is younger than the resume.
            None => {
                let (ledger, id) = (host.ledger.clone(), container.clone());
                let record = tokio::task::spawn_blocking(move || ledger.load(&id)).await;
                let record = record
                    .map_err(|error| failures::internal(&error))?
                    .map_err(|error| failures::internal(&error))?;
                match record.map(|record| record.role) {
                    Some(Role::Owner {
                        arrived: Some(arrived),
                        ..
                    }) => (arrived.migration, arrived.from),
                    Some(Role::Incoming {
                        migration, from, ..
                    }) => (migration, from),
                    Some(Role::None { .. }) => return Ok(Late::Whole),
                    _ => {
                        let text = format!("container {} did not arrive here", container.short());
                        return Err(refuse(text));
                    }
                }
            }
        };
        if from.as_str() != caller || migration != passage.migration {
            return Err(refuse(format!(
                "container {} came here from host `{from}` by migration {migration}, not from \
                 `{caller}` by {}",
                container.short(),
                passage.migration
            )));
        }
        let pager = host.runtime.feed(container).await;
        match pager.map_err(|error| failures::of_runtime(&error))? {
            Some(pager) => Ok(Late::Pager(pager)),
            None => {
                host.arrivals.forget(container);
                Ok(Late::Whole)
            }
        }
    }
}

/// Takes one part of a layer or of a volume, and nothing else. Its name is noted.
struct LayerSink<S> {
    sink: S,
    taken: Arc<Mutex<Option<String>>>,
}

impl<S> LayerSink<S> {
    fn new(sink: S) -> (Self, Arc<Mutex<Option<String>>>) {
        let taken = Arc::default();
        let noted = Arc::clone(&taken);
        (Self { sink, taken }, noted)
    }
}

impl<S: Sink> Sink for LayerSink<S> {
    type File = S::File;
    fn create(&mut self, name: &str) -> io::Result<S::File> {
        let mut taken = self.taken.lock().expect("no holder panics");
        let is_part = name == LAYER || name.starts_with(VOLUME);
        if !is_part || taken.is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        *taken = Some(name.to_owned());
        self.sink.create(name)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.sink.remove(name)
    }
    fn free(&self) -> u64 {
        self.sink.free()
    }
}

impl Sink for RuntimeSink {
    type File = File;
    fn create(&mut self, name: &str) -> io::Result<File> {
        self.incoming.create(name)
    }
    /// Emptied: the file itself goes with the rest at the discard, which follows.
    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.incoming.create(name).map(drop)
    }
    fn free(&self) -> u64 {
        self.free
    }
}
