//! One lane at the destination: every frame into the store, every mark answered.

use std::sync::Arc;

use godwit_proto::transfer::{MemoryClose, MemoryFingerprints};
use godwit_runtime::memory::Fingerprint;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    Arriving, MemoryError,
    compress::Unpacker,
    wire::{self, Kind, Reader, Record, WireError},
};

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("lane broke off before its end")]
    Cut,
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
    Wire(#[from] WireError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Until the lane's end. Answers the bytes that came.
pub async fn receive(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    reader: &mut Reader,
    arriving: &Arc<Arriving>,
    lane: u32,
) -> Result<u64, ReceiveError> {
    let (mut frames, mut bytes) = (0, 0);
    let mut unpacker = Unpacker::new().map_err(WireError::Packed)?;
    loop {
        let record = reader.read(stream).await?.ok_or(ReceiveError::Cut)?;
        match record.kind {
            Kind::Pages | Kind::Zero | Kind::Later => {
                frames += 1;
                bytes += record.body.len() as u64;
                arriving.apply(&record.into_frame(&mut unpacker)?)?;
            }
            Kind::Mark => done(stream).await?,
            Kind::Close => {
                let close = MemoryClose::decode(record.body).map_err(WireError::from)?;
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
                done(stream).await?;
                return Ok(bytes);
            }
            Kind::Open | Kind::Done | Kind::Failed => return Err(ReceiveError::Order),
        }
    }
}

/// Answers that all is well so far.
pub async fn done(stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), WireError> {
    wire::write(stream, &Record::bare(Kind::Done)).await?;
    Ok(stream.flush().await?)
}

fn read(prints: MemoryFingerprints) -> Vec<Fingerprint> {
    let tasks = prints.tasks.into_iter().map(|print| Fingerprint {
        task: print.task,
        pages: print.pages,
        hash: print.hash,
    });
    tasks.collect()
}
