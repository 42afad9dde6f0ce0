//! One lane at the destination: every frame into the store, every mark answered.

use std::sync::Arc;

use godwit_proto::transfer::{MemoryChunk, MemoryFingerprints, MemoryMark, memory_chunk::Chunk};
use godwit_runtime::memory::{Content, Fingerprint, Frame};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Arriving, MemoryError};

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("lane broke off before its end")]
    Cut,
    #[error("lane broke off: {}", .0.message())]
    Broken(Box<Status>),
    #[error("lane brought something that is not expected there")]
    Order,
    #[error(
        "{frames} frames with {bytes} bytes came, and {said_frames} with {said_bytes} were sent"
    )]
    Count {
        frames: u64,
        bytes: u64,
        said_frames: u64,
        said_bytes: u64,
    },
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Until the lane's end. Answers the bytes that came.
pub async fn receive(
    mut chunks: Streaming<MemoryChunk>,
    arriving: Arc<Arriving>,
    lane: u32,
    marks: &mpsc::Sender<Result<MemoryMark, Status>>,
) -> Result<u64, ReceiveError> {
    let (mut frames, mut bytes, mut last) = (0, 0, 0);
    loop {
        let message = chunks
            .message()
            .await
            .map_err(|status| ReceiveError::Broken(Box::new(status)))?;
        let chunk = message.and_then(|message| message.chunk);
        let frame = match chunk.ok_or(ReceiveError::Cut)? {
            Chunk::Pages(pages) => {
                bytes += pages.data.len() as u64;
                Frame {
                    task: pages.task,
                    address: pages.address,
                    content: Content::Pages {
                        bytes: pages.data,
                        hash: pages.hash,
                    },
                }
            }
            Chunk::Zero(zero) => Frame {
                task: zero.task,
                address: zero.address,
                content: Content::Zero(zero.pages),
            },
            Chunk::Mark(mark) => {
                last = mark.number;
                // The source is gone: the next message says so.
                let _ = marks.send(Ok(mark)).await;
                continue;
            }
            Chunk::Close(close) => {
                if (close.frames, close.bytes) != (frames, bytes) {
                    return Err(ReceiveError::Count {
                        frames,
                        bytes,
                        said_frames: close.frames,
                        said_bytes: close.bytes,
                    });
                }
                let there = close.fingerprints.map(read);
                let ending = arriving.clone();
                // Comparing takes its time.
                tokio::task::spawn_blocking(move || ending.close(lane, there))
                    .await
                    .expect("the end of a lane does not panic")?;
                let number = last + 1;
                let _ = marks.send(Ok(MemoryMark { number })).await;
                return Ok(bytes);
            }
            Chunk::Open(_) => return Err(ReceiveError::Order),
        };
        arriving.apply(&frame)?;
        frames += 1;
    }
}

fn read(prints: MemoryFingerprints) -> Vec<Fingerprint> {
    let tasks = prints.tasks.into_iter().map(|print| Fingerprint {
        task: print.task,
        pages: print.pages,
        hash: print.hash,
    });
    tasks.collect()
}
