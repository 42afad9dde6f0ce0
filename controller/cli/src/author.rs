//! What makes images: builds, imports and commits, and the streams they need.

use std::{
    cell::RefCell,
    io::{self, Write},
};

use godwit_proto::{control::AuthorChunk, document, limits, v1::Document};
use godwit_types::{BuildEvent, BuildRequest, CommitRequest, ImageSummary, ImportRequest};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    archive::{HostLoad, read},
    client::{Cluster, Control},
    error::ClientError,
};

/// Chunks between who makes them and the connection.
const AHEAD: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    #[error("can't read what is to be sent")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the answer ended before the image")]
    NoImage,
}

/// Writes a tar, on a thread of its own.
pub type Produce = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// Builds an image. `told` gets what the build says; an error of its ends the build.
pub async fn build<E>(
    cluster: &mut Cluster,
    request: &BuildRequest,
    host: Option<String>,
    context: Produce,
    mut told: impl FnMut(&BuildEvent) -> Result<(), E>,
) -> Result<Result<ImageSummary, AuthorError>, E> {
    let (stream, producer) = stream(document::write(request), Vec::from_iter(host), context);
    let stream = RefCell::new(Some(stream));
    let said = cluster
        .order(async |mut control: Control| {
            // It can be read once only; `order` has found a member that answers.
            let stream = stream.borrow_mut().take();
            let stream = stream.ok_or_else(|| Status::internal("the context is half read"))?;
            control.build(stream).await
        })
        .await;
    let mut said = match said {
        Ok(said) => said,
        Err(error) => return Ok(Err(better(producer, error).await)),
    };
    loop {
        let event = match said.message().await {
            Ok(Some(document)) => match cluster.read::<BuildEvent>(&document) {
                Ok(event) => event,
                Err(error) => return Ok(Err(error.into())),
            },
            Ok(None) => return Ok(Err(AuthorError::NoImage)),
            Err(status) => {
                let error = cluster.stream_failed(status);
                return Ok(Err(better(producer, error).await));
            }
        };
        told(&event)?;
        if let BuildEvent::Built { image, .. } = event {
            return Ok(Ok(*image));
        }
    }
}

/// Makes a tar of a root file system an image of these hosts, or of all that are up.
pub async fn import(
    cluster: &mut Cluster,
    request: &ImportRequest,
    hosts: Vec<String>,
    root: Produce,
) -> Result<Vec<HostLoad>, AuthorError> {
    let (stream, producer) = stream(document::write(request), hosts, root);
    let stream = RefCell::new(Some(stream));
    let reply = cluster
        .order(async |mut control: Control| {
            let stream = stream.borrow_mut().take();
            let stream = stream.ok_or_else(|| Status::internal("the archive is half read"))?;
            control.import_image(stream).await
        })
        .await;
    match reply {
        Ok(reply) => {
            // A host says that it broke off, the reader why.
            if let Ok(Err(error)) = producer.await {
                return Err(AuthorError::Read(error));
            }
            Ok(read(cluster, reply)?)
        }
        Err(error) => Err(better(producer, error).await),
    }
}

/// Makes what a container changed an image. Answers where, too.
pub async fn commit(
    cluster: &mut Cluster,
    request: &CommitRequest,
) -> Result<(String, ImageSummary), ClientError> {
    let request = document::write(request);
    let reply = cluster
        .order(async |mut control: Control| control.commit_container(request.clone()).await)
        .await?;
    let image = cluster.read(&reply.image.unwrap_or_default())?;
    Ok((reply.host, image))
}

/// What was wrong here, if something was: the cluster knows only that it broke off.
async fn better(producer: JoinHandle<io::Result<()>>, error: ClientError) -> AuthorError {
    // One that still works has nothing to say.
    if producer.is_finished()
        && let Ok(Err(source)) = producer.await
    {
        return AuthorError::Read(source);
    }
    AuthorError::Client(error)
}

fn stream(
    request: Document,
    hosts: Vec<String>,
    produce: Produce,
) -> (ReceiverStream<AuthorChunk>, JoinHandle<io::Result<()>>) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let producer = tokio::task::spawn_blocking(move || {
        let mut out = Chunks {
            sender,
            pending: Vec::with_capacity(limits::CHUNK),
        };
        let first = AuthorChunk {
            request: Some(request),
            hosts,
            ..AuthorChunk::default()
        };
        if out.sender.blocking_send(first).is_err() {
            return Ok(());
        }
        match produce(&mut out).and_then(|()| out.flush()) {
            Ok(()) => {
                let end = AuthorChunk {
                    end: true,
                    ..AuthorChunk::default()
                };
                let _ = out.sender.blocking_send(end);
                Ok(())
            }
            // Nobody reads on: why, its own answer says.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(error),
        }
    });
    (ReceiverStream::new(receiver), producer)
}

/// Bytes as chunks of a stream.
struct Chunks {
    sender: mpsc::Sender<AuthorChunk>,
    pending: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = limits::CHUNK - self.pending.len();
        let taken = bytes.len().min(room);
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == limits::CHUNK {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.pending, Vec::with_capacity(limits::CHUNK));
        let chunk = AuthorChunk {
            data: data.into(),
            ..AuthorChunk::default()
        };
        self.sender
            .blocking_send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sent(produce: Produce) -> (Vec<AuthorChunk>, io::Result<()>) {
        let (stream, producer) = stream(Document::default(), vec!["h1".into()], produce);
        let mut receiver = stream.into_inner();
        let mut chunks = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            chunks.push(chunk);
        }
        (chunks, producer.await.unwrap())
    }

    #[tokio::test]
    async fn the_end_is_said_only_when_all_was_read() {
        let (chunks, result) =
            sent(Box::new(|out| out.write_all(&vec![7; limits::CHUNK + 3]))).await;
        result.unwrap();
        let sizes: Vec<_> = chunks.iter().map(|chunk| chunk.data.len()).collect();
        assert_eq!(sizes, [0, limits::CHUNK, 3, 0]);
        assert!(chunks[0].request.is_some() && chunks[0].hosts == ["h1"]);
        assert!(chunks[3].end && !chunks[2].end);

        let (chunks, result) = sent(Box::new(|_| Err(io::Error::other("gone")))).await;
        assert!(result.is_err() && chunks.iter().all(|chunk| !chunk.end));
    }
}
