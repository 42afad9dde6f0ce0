//! The destination's side: passes on what comes to the pager, and what that says to the source.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
};

use godwit_proto::transfer::{
    MemorySpan, PostCopyChunk, PostCopyWord, post_copy_chunk::Chunk, post_copy_word::Word as Said,
};
use godwit_runtime::memory::{
    Content, FRAME_PAGES, Frame, PAGE, Span,
    feed::{Arrival, Word},
};
use godwit_types::{ContainerId, HostName, MigrationId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
};
use tonic::{Status, Streaming};

/// Where containers came from that are on their way here, or run here: only from there more may
/// come. What an agent that
/// has ended knew is in its ledger.
#[derive(Debug, Default)]
pub struct Arrivals {
    from: Mutex<HashMap<ContainerId, (MigrationId, HostName)>>,
}

impl Arrivals {
    pub fn keep(&self, container: &ContainerId, migration: MigrationId, from: HostName) {
        let mut kept = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(container.clone(), (migration, from));
    }

    pub fn forget(&self, container: &ContainerId) {
        let mut kept = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(container);
    }

    pub fn find(&self, container: &ContainerId) -> Option<(MigrationId, HostName)> {
        let kept = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(container).cloned()
    }
}

/// Until the pager has everything, or one of the two goes away.
pub async fn relay(
    mut chunks: Streaming<PostCopyChunk>,
    pager: std::os::unix::net::UnixStream,
    words: &mpsc::Sender<Result<PostCopyWord, Status>>,
) -> Result<(), Status> {
    pager.set_nonblocking(true).map_err(|error| gone(&error))?;
    let pager = UnixStream::from_std(pager).map_err(|error| gone(&error))?;
    let (mut from_pager, mut to_pager) = pager.into_split();
    let inward = async {
        while let Some(chunk) = chunks.message().await? {
            let Some(chunk) = chunk.chunk else { continue };
            let lost = matches!(chunk, Chunk::Lost(_));
            let arrival = checked(chunk)?;
            let head = arrival.head();
            let written = async {
                to_pager.write_all(&head).await?;
                if let Arrival::Pages { bytes, .. } = &arrival {
                    to_pager.write_all(bytes).await?;
                }
                Ok(())
            };
            written.await.map_err(|error| gone(&error))?;
            if lost {
                break;
            }
        }
        Ok(())
    };
    let outward = async {
        let mut word = [0; Word::LENGTH];
        loop {
            from_pager
                .read_exact(&mut word)
                .await
                .map_err(|error| gone(&error))?;
            let word = Word::decode(&word).map_err(|error| gone(&error))?;
            let whole = word == Word::Whole;
            let said = PostCopyWord {
                word: Some(say(word)),
            };
            if words.send(Ok(said)).await.is_err() || whole {
                return Ok(());
            }
        }
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

fn gone(error: &io::Error) -> Status {
    Status::aborted(format!("the container's memory can't be reached: {error}"))
}

/// What a source sent, as the pager is told it.
fn checked(chunk: Chunk) -> Result<Arrival, Status> {
    let span = |address: u64, length: Option<u64>| {
        let end = length.and_then(|length| address.checked_add(length));
        let whole = address.is_multiple_of(PAGE) && length.is_some_and(|l| l.is_multiple_of(PAGE));
        match end {
            Some(end) if whole && end > address => Ok(Span {
                start: address,
                end,
            }),
            _ => Err(Status::invalid_argument("a span that can't be")),
        }
    };
    match chunk {
        Chunk::Pages(pages) => {
            let length = pages.data.len() as u64;
            span(pages.address, Some(length))?;
            if length > FRAME_PAGES as u64 * PAGE {
                return Err(Status::invalid_argument("too many pages at once"));
            }
            let frame = Frame {
                task: pages.task,
                address: pages.address,
                content: Content::Pages {
                    bytes: pages.data.clone(),
                    hash: pages.hash,
                },
            };
            if !frame.is_whole() {
                return Err(Status::data_loss(format!(
                    "memory of task {} at {:#x} is not what was read",
                    pages.task, pages.address
                )));
            }
            Ok(Arrival::Pages {
                task: pages.task,
                address: pages.address,
                bytes: pages.data.into(),
            })
        }
        Chunk::Zero(zero) => Ok(Arrival::Zero {
            task: zero.task,
            span: span(zero.address, zero.pages.checked_mul(PAGE))?,
        }),
        Chunk::Lost(reason) => {
            tracing::error!(reason, "the rest of a container's memory is lost");
            Ok(Arrival::Lost)
        }
        Chunk::Open(_) => Err(Status::invalid_argument("a second open")),
    }
}

fn say(word: Word) -> Said {
    let part = |task, span: Span| MemorySpan {
        task,
        address: span.start,
        pages: span.pages(),
    };
    match word {
        Word::Missing { task, span } => Said::Missing(part(task, span)),
        Word::Told => Said::Told(true),
        Word::Want { task, address } => Said::Want(MemorySpan {
            task,
            address,
            pages: 1,
        }),
        Word::Got { bytes } => Said::Got(bytes),
        Word::Whole => Said::Whole(true),
    }
}

#[cfg(test)]
mod tests {
    use godwit_proto::transfer::{MemoryPages, Open};

    use super::*;

    #[test]
    fn what_a_hostile_source_sends_does_not_reach_the_pager() {
        let hashed = |address, length, hash| {
            Chunk::Pages(MemoryPages {
                task: 1,
                address,
                data: vec![1; length].into(),
                hash,
            })
        };
        let hash = |address, length| match Frame::pages(1, address, vec![1; length].into()).content
        {
            Content::Pages { hash, .. } => hash,
            _ => 0,
        };
        let pages = |address, length| hashed(address, length, hash(address, length));
        let zero = |address, pages| {
            Chunk::Zero(MemorySpan {
                task: 1,
                address,
                pages,
            })
        };
        for bad in [
            pages(0x1000, 0),
            pages(0x1000, 5),
            pages(0x1001, 4096),
            pages(0x1000, 65 * 4096),
            pages(u64::MAX - 0xfff, 4096),
            hashed(0x1000, 4096, hash(0x2000, 4096)),
            zero(0x1000, 0),
            zero(0x1000, u64::MAX),
            zero(0x1000, u64::MAX / PAGE),
            Chunk::Open(Open::default()),
        ] {
            assert!(checked(bad).is_err());
        }
        assert!(checked(pages(0x1000, 4096)).is_ok());
        assert!(checked(zero(0x1000, 3)).is_ok());
        assert_eq!(checked(Chunk::Lost(String::new())).unwrap(), Arrival::Lost);
    }
}
