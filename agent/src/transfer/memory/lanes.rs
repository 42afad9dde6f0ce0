//! The lanes of a source: opened before the first round, closed in the freeze.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use godwit_proto::{
    failure::{Problem, problem},
    limits,
    transfer::{
        MemoryChunk, MemoryClose, MemoryFingerprint, MemoryFingerprints, MemoryMark, MemoryOpen,
        MemoryPages, MemoryZero, memory_chunk::Chunk, transfer_client::TransferClient,
    },
};
use godwit_runtime::memory::{Content, Fingerprint, Frame};
use godwit_types::FailureKind;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::super::protocol::{Passage, said};

/// Frames that wait for a lane's connection.
const AHEAD: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// Only the message: a status prints its metadata too.
    #[error("{}", said(.0))]
    Peer(Box<Status>),
    #[error("the destination ended a lane")]
    Ended,
}

impl LaneError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Peer(status) => match problem(status) {
                Some(Problem::Failed(failure)) => failure.kind,
                Some(Problem::Refused(_)) | None => FailureKind::Peer,
            },
            Self::Ended => FailureKind::Peer,
        }
    }
}

/// Dropped, the destination forgets what came.
pub struct Lanes {
    /// The connection of the first.
    channel: Channel,
    lanes: Vec<Lane>,
    marks: u64,
}

struct Lane {
    chunks: mpsc::Sender<MemoryChunk>,
    marks: Streaming<MemoryMark>,
    frames: u64,
    bytes: u64,
}

impl Lanes {
    /// One lane a channel.
    pub async fn open(channels: Vec<Channel>, passage: &Passage) -> Result<Self, LaneError> {
        let count = channels.len() as u32;
        let channel = channels.first().cloned().ok_or(LaneError::Ended)?;
        let opened = (0..).zip(channels).map(|(lane, channel)| async move {
            let (chunks, receiver) = mpsc::channel(AHEAD);
            let open = MemoryOpen {
                open: Some(passage.opening()),
                lane,
                lanes: count,
            };
            let first = chunks.send(chunk(Chunk::Open(open))).await;
            first.map_err(|_| LaneError::Ended)?;
            let marks = TransferClient::new(channel)
                .max_decoding_message_size(limits::MESSAGE)
                .memory(ReceiverStream::new(receiver))
                .await
                .map_err(|status| LaneError::Peer(Box::new(status)))?
                .into_inner();
            Ok(Lane {
                chunks,
                marks,
                frames: 0,
                bytes: 0,
            })
        });
        let lanes = futures::future::try_join_all(opened).await?;
        Ok(Self {
            channel,
            lanes,
            marks: 0,
        })
    }

    /// A connection that stands already: in the freeze there is no time to make one.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Where a thread writes frames to.
    pub fn writer(&self, pace: Pace) -> Writer {
        Writer {
            lanes: self.lanes.iter().map(|lane| lane.chunks.clone()).collect(),
            counts: vec![(0, 0); self.lanes.len()],
            pace,
        }
    }

    /// Counts what a writer wrote.
    pub fn count(&mut self, writer: Writer) {
        for (lane, (frames, bytes)) in self.lanes.iter_mut().zip(writer.counts) {
            lane.frames += frames;
            lane.bytes += bytes;
        }
    }

    /// Waits until everything that was written is in place.
    pub async fn barrier(&mut self) -> Result<(), LaneError> {
        self.marks += 1;
        let number = self.marks;
        self.all(|_, _| Chunk::Mark(MemoryMark { number })).await
    }

    /// The end. `there`: what the tasks hold, for the destination to compare with what came.
    /// Answers the bytes that came over, in all.
    pub async fn close(mut self, there: Option<&[Fingerprint]>) -> Result<u64, LaneError> {
        let bytes = self.bytes();
        self.all(|number, lane| {
            Chunk::Close(MemoryClose {
                frames: lane.frames,
                bytes: lane.bytes,
                fingerprints: there.filter(|_| number == 0).map(fingerprints),
            })
        })
        .await?;
        Ok(bytes)
    }

    pub fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Sends on every lane, and waits for every answer.
    async fn all(&mut self, make: impl Fn(usize, &Lane) -> Chunk) -> Result<(), LaneError> {
        let asked = self.lanes.iter_mut().enumerate().map(|(number, lane)| {
            let message = chunk(make(number, lane));
            async move {
                // Not taken: the answer says why.
                let _ = lane.chunks.send(message).await;
                match lane.marks.message().await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err(LaneError::Ended),
                    Err(status) => Err(LaneError::Peer(Box::new(status))),
                }
            }
        });
        futures::future::try_join_all(asked).await.map(drop)
    }
}

fn chunk(chunk: Chunk) -> MemoryChunk {
    MemoryChunk { chunk: Some(chunk) }
}

fn fingerprints(prints: &[Fingerprint]) -> MemoryFingerprints {
    let tasks = prints.iter().map(|print| MemoryFingerprint {
        task: print.task,
        pages: print.pages,
        hash: print.hash,
    });
    MemoryFingerprints {
        tasks: tasks.collect(),
    }
}

/// Writes frames to their lanes, from a thread that may wait.
pub struct Writer {
    lanes: Vec<mpsc::Sender<MemoryChunk>>,
    counts: Vec<(u64, u64)>,
    pace: Pace,
}

impl Writer {
    /// An error: the lane is gone, and its answer says why.
    pub fn write(&mut self, frame: Frame) -> io::Result<()> {
        let at = (frame.cell() % self.lanes.len() as u64) as usize;
        let Frame { task, address, .. } = frame;
        let (message, bytes) = match frame.content {
            Content::Pages { bytes: data, hash } => {
                let bytes = data.len() as u64;
                let pages = MemoryPages {
                    task,
                    address,
                    data,
                    hash,
                };
                (Chunk::Pages(pages), bytes)
            }
            Content::Zero(pages) => {
                let zero = MemoryZero {
                    task,
                    address,
                    pages,
                };
                (Chunk::Zero(zero), 0)
            }
        };
        self.pace.keep(bytes);
        self.lanes[at]
            .blocking_send(chunk(message))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        let (frames, sent) = &mut self.counts[at];
        *frames += 1;
        *sent += bytes;
        Ok(())
    }
}

/// No more than so many bytes a second.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self {
            bytes_per_s,
            began: Instant::now(),
            bytes: 0,
        }
    }

    /// Waits until so much more may go.
    pub fn keep(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_s else { return };
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
        if let Some(early) = due.checked_sub(self.began.elapsed()) {
            thread::sleep(early);
        }
    }
}
