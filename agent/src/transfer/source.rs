//! The sending side: reads the files on a thread of its own and pushes them.

use std::{fs::File, io, io::Read, path::PathBuf, time::Duration};

use bytes::BytesMut;
use godwit_proto::{
    failure::{Problem, problem},
    limits,
    transfer::{
        Close, End, PushChunk, PushReply, push_chunk::Chunk, transfer_client::TransferClient,
    },
};
use godwit_runtime::checkpoint::CheckpointFile;
use godwit_types::FailureKind;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, transport::Channel};

use super::{
    memory::Pace,
    protocol::{Passage, chunk, said},
};

/// Bytes of one read. Chunks are cut from it without a copy.
const READ: usize = 4 * limits::CHUNK;
/// Chunks between the reading thread and the connection.
const AHEAD: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("can't read checkpoint file `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("checkpoint file `{path}` is shorter than its {size} bytes")]
    Short { path: PathBuf, size: u64 },
    /// Only the message: a status prints its metadata too.
    #[error("{}", said(.0))]
    Peer(Box<Status>),
    #[error("{sent} bytes were sent and {received} received")]
    Count { sent: u64, received: u64 },
}

impl SourceError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Read { .. } | Self::Short { .. } => FailureKind::Internal,
            Self::Peer(status) => match problem(status) {
                Some(Problem::Failed(failure)) => failure.kind,
                Some(Problem::Refused(_)) | None => FailureKind::Peer,
            },
            Self::Count { .. } => FailureKind::Peer,
        }
    }
}

/// Sends the files in order. Answers their bytes, which the destination has confirmed.
pub async fn push(
    channel: Channel,
    passage: &Passage,
    files: Vec<CheckpointFile>,
) -> Result<u64, SourceError> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let open = passage.open();
    let pace = Pace::new(None);
    let reader = tokio::task::spawn_blocking(move || read_all(open, files, pace, &sender));
    let reply = TransferClient::new(channel)
        .push(ReceiverStream::new(receiver))
        .await;
    confirm(reply, reader).await
}

/// Sends a part of a writable layer, which the destination has applied when this is answered.
pub async fn push_layer(
    channel: Channel,
    passage: &Passage,
    part: CheckpointFile,
    pace: Pace,
) -> Result<u64, SourceError> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let open = passage.open();
    let reader = tokio::task::spawn_blocking(move || read_all(open, vec![part], pace, &sender));
    let reply = TransferClient::new(channel)
        .layer(ReceiverStream::new(receiver))
        .await;
    confirm(reply, reader).await
}

async fn confirm(
    reply: Result<Response<PushReply>, Status>,
    reader: JoinHandle<Result<Option<u64>, SourceError>>,
) -> Result<u64, SourceError> {
    match reply {
        Ok(reply) => {
            let received = reply.into_inner().bytes;
            let sent = reader.await.expect("the reader does not panic")?;
            match sent {
                Some(sent) if sent == received => Ok(sent),
                sent => Err(SourceError::Count {
                    sent: sent.unwrap_or(0),
                    received,
                }),
            }
        }
        // A file that could not be read cuts the stream, and is then the cause. The reader may
        // hang on a connection that broke without a word; it ends with the connection.
        Err(status) => match timeout(Duration::from_secs(1), reader).await {
            Ok(Ok(Err(error))) => Err(error),
            _ => Err(SourceError::Peer(Box::new(status))),
        },
    }
}

/// Answers the bytes sent, None when nobody took them any more.
fn read_all(
    open: PushChunk,
    files: Vec<CheckpointFile>,
    mut pace: Pace,
    sender: &mpsc::Sender<PushChunk>,
) -> Result<Option<u64>, SourceError> {
    if sender.blocking_send(open).is_err() {
        return Ok(None);
    }
    let mut close = Close { files: 0, bytes: 0 };
    for file in files {
        if !read_one(&file, &mut pace, sender)? {
            return Ok(None);
        }
        close.files += 1;
        close.bytes += file.size;
    }
    Ok(sender
        .blocking_send(chunk(Chunk::Close(close)))
        .is_ok()
        .then_some(close.bytes))
}

/// False when nobody took the chunks any more.
fn read_one(
    from: &CheckpointFile,
    pace: &mut Pace,
    sender: &mpsc::Sender<PushChunk>,
) -> Result<bool, SourceError> {
    let failed = |source| SourceError::Read {
        path: from.path.clone(),
        source,
    };
    let begin = godwit_proto::transfer::File {
        name: from.name.clone(),
        size: from.size,
    };
    let mut file = File::open(&from.path).map_err(failed)?;
    if sender.blocking_send(chunk(Chunk::File(begin))).is_err() {
        return Ok(false);
    }
    let mut hasher = blake3::Hasher::new();
    let mut left = from.size;
    while left > 0 {
        let mut buffer = BytesMut::zeroed(left.min(READ as u64) as usize);
        file.read_exact(&mut buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => SourceError::Short {
                    path: from.path.clone(),
                    size: from.size,
                },
                _ => failed(error),
            })?;
        hasher.update(&buffer);
        left -= buffer.len() as u64;
        while !buffer.is_empty() {
            let data = buffer.split_to(buffer.len().min(limits::CHUNK)).freeze();
            pace.keep(data.len() as u64);
            if sender.blocking_send(chunk(Chunk::Data(data))).is_err() {
                return Ok(false);
            }
        }
    }
    let hash = bytes::Bytes::copy_from_slice(hasher.finalize().as_bytes());
    Ok(sender
        .blocking_send(chunk(Chunk::End(End { hash })))
        .is_ok())
}
