//! The receiving side: checks everything and writes it on a thread of its own.

use std::{
    collections::HashSet,
    io::{self, Write},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use godwit_proto::{
    limits,
    transfer::{PushChunk, push_chunk::Chunk},
};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::protocol::FILES;

/// Chunks between the connection and the writing thread.
const BEHIND: usize = 16;

/// Where files go.
pub trait Sink: Send + 'static {
    type File: Write;
    /// An empty file; `InvalidInput` when the name leads anywhere else.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;
    /// Takes back what `create` made.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Bytes that there is room for.
    fn free(&self) -> u64;
}

/// Why a push was ended.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("{got} came, {awaited} was awaited")]
    Order {
        got: &'static str,
        awaited: &'static str,
    },
    #[error("chunk of {0} bytes; 1 to {max} are allowed", max = limits::CHUNK)]
    Chunk(usize),
    #[error("file name `{}` is not valid", .0.escape_debug())]
    Name(String),
    #[error("file `{0}` came twice")]
    Twice(String),
    #[error("more than {FILES} files")]
    TooMany,
    #[error("file `{name}` has {got} bytes, not {size}")]
    Size { name: String, got: u64, size: u64 },
    #[error("file `{0}` does not have the hash it was sent with")]
    Hash(String),
    #[error("{files} files of {bytes} bytes came, not {said_files} of {said_bytes}")]
    Totals {
        files: u32,
        bytes: u64,
        said_files: u32,
        said_bytes: u64,
    },
    #[error("no room: {need} bytes needed, {free} free")]
    NoRoom { need: u64, free: u64 },
    #[error("can't write file `{name}`")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the stream ended before the push was closed")]
    Cut,
    #[error("the stream broke off: {}", .0.message())]
    Broken(Box<Status>),
    #[error("the push was called off here")]
    CalledOff,
}

/// Takes a push, its Open already read. `called_off` changes when it is to end early. Answers
/// the bytes of all files; after an error no file of it is left.
pub async fn receive<S: Sink>(
    mut chunks: impl Stream<Item = Result<PushChunk, Status>> + Unpin,
    sink: S,
    mut called_off: watch::Receiver<u64>,
) -> Result<u64, PushError> {
    let (sender, mut receiver) = mpsc::channel(BEHIND);
    let writer = tokio::task::spawn_blocking(move || {
        let mut receiving = Receiving::new(sink);
        while let Some(chunk) = receiver.blocking_recv() {
            match receiving.take(chunk) {
                Ok(None) => {}
                Ok(Some(bytes)) => return Ok(bytes),
                Err(error) => {
                    receiving.abandon();
                    return Err(error);
                }
            }
        }
        receiving.abandon();
        Err(PushError::Cut)
    });
    let mut cause = None;
    loop {
        let next = tokio::select! {
            biased;
            _ = called_off.changed() => {
                cause = Some(PushError::CalledOff);
                break;
            }
            next = chunks.next() => next,
        };
        let chunk = match next {
            Some(Ok(PushChunk { chunk: Some(chunk) })) => chunk,
            // A message of a kind that this version does not know.
            Some(Ok(PushChunk { chunk: None })) => {
                cause = Some(PushError::Order {
                    got: "nothing",
                    awaited: "a chunk",
                });
                break;
            }
            Some(Err(status)) => {
                cause = Some(PushError::Broken(Box::new(status)));
                break;
            }
            None => break,
        };
        let last = matches!(chunk, Chunk::Close(_));
        // An error means that the writer has ended, and says why below.
        if sender.send(chunk).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    match (writer.await.expect("the writer does not panic"), cause) {
        // Without a Close the writer knows only that the stream was cut, not why.
        (Err(PushError::Cut), Some(cause)) => Err(cause),
        (result, _) => result,
    }
}

/// The states of the protocol, and the files written so far.
struct Receiving<S: Sink> {
    sink: S,
    state: State<S::File>,
    names: HashSet<String>,
    /// Of the files that have begun.
    bytes: u64,
    free: u64,
}

enum State<F> {
    Between,
    Within {
        name: String,
        size: u64,
        got: u64,
        hasher: Box<blake3::Hasher>,
        file: F,
    },
    Closed,
}

impl<S: Sink> Receiving<S> {
    fn new(sink: S) -> Self {
        let free = sink.free();
        Self {
            sink,
            state: State::Between,
            names: HashSet::new(),
            bytes: 0,
            free,
        }
    }

    /// Answers the bytes of all files once the push is closed.
    fn take(&mut self, chunk: Chunk) -> Result<Option<u64>, PushError> {
        match (std::mem::replace(&mut self.state, State::Closed), chunk) {
            (State::Between, Chunk::File(begin)) => {
                self.state = self.begin(begin)?;
                Ok(None)
            }
            (State::Between, Chunk::Close(close)) => {
                let files = self.names.len() as u32;
                if (files, self.bytes) == (close.files, close.bytes) {
                    Ok(Some(self.bytes))
                } else {
                    Err(PushError::Totals {
                        files,
                        bytes: self.bytes,
                        said_files: close.files,
                        said_bytes: close.bytes,
                    })
                }
            }
            (
                State::Within {
                    name,
                    size,
                    got,
                    mut hasher,
                    mut file,
                },
                Chunk::Data(data),
            ) => {
                let got = got + checked(&data)?;
                if got > size {
                    return Err(PushError::Size { name, got, size });
                }
                hasher.update(&data);
                if let Err(source) = file.write_all(&data) {
                    return Err(PushError::Write { name, source });
                }
                self.state = State::Within {
                    name,
                    size,
                    got,
                    hasher,
                    file,
                };
                Ok(None)
            }
            (
                State::Within {
                    name,
                    size,
                    got,
                    hasher,
                    mut file,
                },
                Chunk::End(end),
            ) => {
                if got != size {
                    return Err(PushError::Size { name, got, size });
                }
                if hasher.finalize().as_bytes()[..] != end.hash[..] {
                    return Err(PushError::Hash(name));
                }
                file.flush()
                    .map_err(|source| PushError::Write { name, source })?;
                self.state = State::Between;
                Ok(None)
            }
            (state, chunk) => Err(PushError::Order {
                got: word(&chunk),
                awaited: awaited(&state),
            }),
        }
    }

    fn begin(&mut self, begin: godwit_proto::transfer::File) -> Result<State<S::File>, PushError> {
        let godwit_proto::transfer::File { name, size } = begin;
        if self.names.len() as u32 >= FILES {
            return Err(PushError::TooMany);
        }
        let need = self.bytes.saturating_add(size);
        if need > self.free {
            return Err(PushError::NoRoom {
                need,
                free: self.free,
            });
        }
        if self.names.contains(&name) {
            return Err(PushError::Twice(name));
        }
        let file = match self.sink.create(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(PushError::Name(name));
            }
            Err(source) => return Err(PushError::Write { name, source }),
        };
        self.names.insert(name.clone());
        self.bytes = need;
        Ok(State::Within {
            name,
            size,
            got: 0,
            hasher: Box::default(),
            file,
        })
    }

    /// Leaves no file. Goes on after one that can't be removed.
    fn abandon(mut self) {
        self.state = State::Closed;
        for name in &self.names {
            if let Err(error) = self.sink.remove(name) {
                tracing::warn!(file = name, %error, "partial file can't be removed");
            }
        }
    }
}

fn checked(data: &Bytes) -> Result<u64, PushError> {
    if (1..=limits::CHUNK).contains(&data.len()) {
        Ok(data.len() as u64)
    } else {
        Err(PushError::Chunk(data.len()))
    }
}

fn word(chunk: &Chunk) -> &'static str {
    match chunk {
        Chunk::Open(_) => "open",
        Chunk::File(_) => "file",
        Chunk::Data(_) => "data",
        Chunk::End(_) => "end",
        Chunk::Close(_) => "close",
    }
}

fn awaited<F>(state: &State<F>) -> &'static str {
    match state {
        State::Between => "file or close",
        State::Within { .. } => "data or end",
        State::Closed => "nothing",
    }
}
