//! The gRPC service `HostService`: what members ask of this host outside of sessions.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{Stream, StreamExt as _};
use godwit_proto::{
    agent::{
        HostCommitRequest, HostLogsRequest, ImageChunk,
        host_service_server::{HostService, HostServiceServer},
    },
    authz,
    control::{AuthorChunk, LogChunk, LookRequest, SaveImagesRequest, SessionInput},
    document,
    failure::{chain, failed},
    limits, v1,
};
use godwit_types::{CommandFailure, ContainerId, FailureKind, InstanceState};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::{
    build, failures,
    host::Host,
    images,
    loading::{self, Piece},
    logs::{Reader, Wanted},
    looking::{self, Outputs},
};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Chunks between the reader of a log and its connection.
const AHEAD: usize = 4;

/// See the module.
pub struct Service {
    host: Arc<Host>,
}

impl Service {
    pub fn server(host: Arc<Host>) -> HostServiceServer<Self> {
        HostServiceServer::new(Self { host }).max_decoding_message_size(limits::MESSAGE)
    }
}

#[tonic::async_trait]
impl HostService for Service {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogChunk, Status>> + Send>>;

    async fn logs(
        &self,
        request: Request<HostLogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let HostLogsRequest {
            container,
            follow,
            skip,
            tail,
            since_ns: since,
            until_ns: until,
            timestamps,
        } = request.into_inner();
        let container: ContainerId = container
            .parse()
            .map_err(|error| Status::invalid_argument(chain(&error)))?;
        let path = self.host.runtime.log_path(&container);
        let wanted = Wanted {
            since,
            until,
            timestamps,
        };
        let reader = blocking(move || {
            let (skip, end) = match tail {
                Some(lines) if skip == 0 => {
                    let (begin, end) = Reader::tail(&path, lines)?;
                    (begin, Some(end))
                }
                _ => (skip, None),
            };
            let reader = Reader::open(&path, skip, wanted)?;
            match follow {
                true => Ok(reader),
                false => reader.stop_at(end),
            }
        })
        .await?;
        let reader = reader.map_err(|error| self.unreadable(&container, &error))?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let host = self.host.clone();
        // Where it begins: whoever has to ask again asks from there.
        let begins = LogChunk {
            offset: reader.offset(),
            ..LogChunk::default()
        };
        let _ = sender.send(Ok(begins)).await;
        let follow = Follow { follow, until };
        tokio::spawn(async move {
            if let Err(status) = send_log(&host, &container, reader, follow, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    type ExecStream = Outputs;

    async fn exec(
        &self,
        request: Request<Streaming<SessionInput>>,
    ) -> Result<Response<Outputs>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let outputs = looking::exec(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(outputs))
    }

    type AttachStream = Outputs;

    async fn attach(
        &self,
        request: Request<Streaming<SessionInput>>,
    ) -> Result<Response<Outputs>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let outputs = looking::attach(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(outputs))
    }

    async fn look(&self, request: Request<LookRequest>) -> Result<Response<v1::Documents>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let seen = looking::look(&self.host, request.into_inner()).await?;
        Ok(Response::new(seen))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<ImageChunk>>,
    ) -> Result<Response<v1::Documents>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let mut chunks = request.into_inner();
        let (sender, archive) = loading::archive();
        let runtime = self.host.runtime.clone();
        let loading = tokio::task::spawn_blocking(move || runtime.images().load(archive));
        loop {
            // An error drops the sender, and the archive then reads as broken off.
            let piece = match chunks.message().await? {
                Some(chunk) => Piece::Data(chunk.data),
                None => Piece::End,
            };
            let last = matches!(piece, Piece::End);
            // The loader may have seen enough, or failed: it says which below.
            if sender.send(piece).await.is_err() || last {
                break;
            }
        }
        let loaded = loading
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let images = loaded.map_err(|error| {
            let failure = failures::on_host(&self.host.name, failures::internal(&error));
            warn!(error = %failure, "image not loaded");
            failed(failure)
        })?;
        for image in &images {
            info!(image = image.id.short(), names = ?image.names, "image loaded");
        }
        self.host.refresh_images().await;
        Ok(Response::new(document::write_all(images)))
    }

    type BuildStream = build::service::Events;

    async fn build(
        &self,
        request: Request<Streaming<AuthorChunk>>,
    ) -> Result<Response<Self::BuildStream>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let events = build::service::build(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(events))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<AuthorChunk>>,
    ) -> Result<Response<v1::Document>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let image = build::service::import(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(image))
    }

    async fn commit_container(
        &self,
        request: Request<HostCommitRequest>,
    ) -> Result<Response<v1::Document>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let image = build::service::commit(self.host.clone(), request.into_inner()).await?;
        Ok(Response::new(image))
    }

    type ImageWorkStream = Pin<Box<dyn Stream<Item = Result<v1::Document, Status>> + Send>>;

    async fn image_work(
        &self,
        request: Request<v1::Document>,
    ) -> Result<Response<Self::ImageWorkStream>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let order = document::read(&request.into_inner())?;
        let news = images::carry_out(self.host.clone(), order);
        let news = ReceiverStream::new(news).map(|news| Ok(document::write(&news)));
        Ok(Response::new(Box::pin(news)))
    }

    type SaveImagesStream = Pin<Box<dyn Stream<Item = Result<ImageChunk, Status>> + Send>>;

    async fn save_images(
        &self,
        request: Request<SaveImagesRequest>,
    ) -> Result<Response<Self::SaveImagesStream>, Status> {
        authz::require(&request, authz::Service::Host)?;
        let chunks = images::save(&self.host.images, request.into_inner().images).await;
        let chunks =
            chunks.map_err(|failure| failed(failures::on_host(&self.host.name, failure)))?;
        let chunks = ReceiverStream::new(chunks).map(|chunk| match chunk {
            Ok(data) => Ok(ImageChunk { data }),
            Err(error) => Err(Status::internal(error.to_string())),
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// How long a log is followed.
#[derive(Clone, Copy)]
struct Follow {
    follow: bool,
    /// Nanoseconds since 1970. 0: until its container ends.
    until: u64,
}

impl Follow {
    fn is_over(self) -> bool {
        let passed = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.is_ok_and(|now| now.as_nanos() > u128::from(self.until))
        };
        !self.follow || (self.until != 0 && passed())
    }
}

impl Service {
    fn unreadable(&self, container: &ContainerId, error: &io::Error) -> Status {
        let (kind, text) = if error.kind() == io::ErrorKind::NotFound {
            let text = format!("no log of container {} on this host", container.short());
            (FailureKind::NotFound, text)
        } else {
            let text = format!("can't read the log of container {}", container.short());
            (FailureKind::Internal, format!("{text}: {error}"))
        };
        failed(failures::on_host(
            &self.host.name,
            CommandFailure::new(kind, text),
        ))
    }
}

/// Sends what there is; when it is followed, goes on until the instance has ended and all of it
/// is sent, or nobody listens any more.
async fn send_log(
    host: &Host,
    container: &ContainerId,
    mut reader: Reader,
    follow: Follow,
    sender: &mpsc::Sender<Result<LogChunk, Status>>,
) -> Result<(), Status> {
    loop {
        // Asked before the read, so that what was written until the end is still read.
        let ended = follow.is_over() || has_ended(host.board.state(container));
        let (back, chunks) = blocking(move || {
            let chunks = reader.read();
            (reader, chunks)
        })
        .await?;
        reader = back;
        let chunks = chunks.map_err(|error| Status::internal(chain(&error)))?;
        if chunks.is_empty() {
            if ended {
                return Ok(());
            }
            tokio::select! {
                () = sender.closed() => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
            }
        }
        for chunk in chunks {
            if sender.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn has_ended(state: Option<InstanceState>) -> bool {
    match state {
        None | Some(InstanceState::Exited { .. } | InstanceState::Lost { .. }) => true,
        Some(
            InstanceState::Created
            | InstanceState::Running { .. }
            | InstanceState::Paused { .. }
            | InstanceState::Restarting { .. }
            | InstanceState::Frozen { .. }
            | InstanceState::Staged { .. },
        ) => false,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))
}
