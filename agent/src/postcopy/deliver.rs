//! The source's side.

use std::{io::ErrorKind, time::Duration};

use godwit_proto::{
    failure::{Problem, problem},
    limits,
    tls::{Role, channel},
    transfer::{
        MemoryPages, MemorySpan, PostCopyChunk, PostCopyWord, post_copy_chunk::Chunk,
        post_copy_word::Word, transfer_client::TransferClient,
    },
};
use godwit_runtime::memory::{Content, Frame, Left, PAGE, Span};
use godwit_types::{ContainerId, Generation, MigrationId, Outcome, PostCopyTo, Progress};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::warn;

use crate::{
    failures,
    host::Host,
    ledger::Answer,
    transfer::protocol::{Passage, said},
};

/// Bytes on their way at most: a page that is wanted waits behind no more than these.
const WINDOW: u64 = 1 << 20;
/// Frames that wait for the connection.
const AHEAD: usize = 4;
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it says how far it is.
const WORD: Duration = Duration::from_millis(200);

/// How a call ended.
enum Call {
    Whole,
    /// To be made again, with what the destination misses then.
    Broken(String),
    /// The destination was told that it will never have the rest.
    Told(String),
}

/// What one migration left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    passage: Passage,
    after: PostCopyTo,
}

impl Tail {
    /// `generation`: the source's own.
    pub fn new(
        migration: &MigrationId,
        container: &ContainerId,
        generation: Generation,
        after: PostCopyTo,
    ) -> Self {
        Self {
            passage: Passage {
                migration: migration.clone(),
                container: container.clone(),
                generation: generation.next(),
                carried: true,
            },
            after,
        }
    }

    pub fn passage(&self) -> &Passage {
        &self.passage
    }

    /// Returns when the destination has everything, or when there is nothing to give it. A
    /// destination that is not there is waited for: what it lacks is only here.
    pub async fn deliver(&self, host: &Host) -> Answer {
        let Passage {
            migration,
            container,
            ..
        } = &self.passage;
        let mut sent = 0;
        let mut pause = PAUSE;
        loop {
            let left = host.runtime.left(container, migration).await;
            let left = left.map_err(|error| failures::of_runtime(&error))?;
            let before = sent;
            match call(host, &self.passage, &self.after, left, &mut sent).await {
                Call::Whole => break,
                // It knows now, and no answer would change anything.
                Call::Told(why) => {
                    let lost = format!("host `{}`: {why}", host.name);
                    return Ok(Outcome::Released {
                        bytes: sent,
                        lost: Some(lost),
                    });
                }
                Call::Broken(reason) => {
                    warn!(container = container.short(), %migration, to = %self.after.to, reason,
                        "memory that was left behind is not all there yet");
                }
            }
            pause = if sent > before {
                PAUSE
            } else {
                (pause * 2).min(PAUSE_MAX)
            };
            tokio::time::sleep(pause).await;
        }
        Ok(Outcome::Released {
            bytes: sent,
            lost: None,
        })
    }
}

async fn call(
    host: &Host,
    passage: &Passage,
    after: &PostCopyTo,
    left: Option<Left>,
    sent: &mut u64,
) -> Call {
    let (chunks, receiver) = mpsc::channel(AHEAD);
    let say = |chunk| PostCopyChunk { chunk: Some(chunk) };
    let _ = chunks.send(say(Chunk::Open(passage.opening()))).await;
    let target = host.peer(Role::Host, Some(after.to.as_str()), &after.address);
    let opened = TransferClient::new(channel(host.tls.clone(), target))
        .max_decoding_message_size(limits::MESSAGE)
        .post_copy(ReceiverStream::new(receiver))
        .await;
    let mut words = match opened {
        Ok(words) => words.into_inner(),
        Err(status) => return broken(&status),
    };
    let mut state = State {
        left,
        told: false,
        on_its_way: 0,
        max_bandwidth: after.max_bandwidth,
        total: 0,
        began: Instant::now(),
        spoke: Instant::now(),
        sent: 0,
    };
    loop {
        let (may_send, due) = (state.may_send(), state.due());
        let room = async {
            tokio::time::sleep_until(due).await;
            chunks.reserve().await
        };
        tokio::select! {
            biased;
            word = words.message() => match word {
                Ok(Some(PostCopyWord { word: Some(Word::Whole(_)) })) => return Call::Whole,
                Ok(Some(PostCopyWord { word: Some(word) })) => {
                    if !state.hear(word) {
                        return lost(&chunks, "memory is missed that never was").await;
                    }
                    if state.told && state.left.is_none() {
                        return lost(&chunks, "its frozen tasks are gone").await;
                    }
                }
                Ok(Some(PostCopyWord { word: None })) => {}
                Ok(None) => return Call::Broken("the destination ended the call".to_owned()),
                Err(status) => return broken(&status),
            },
            room = room, if may_send => {
                let Ok(room) = room else {
                    return Call::Broken("the connection is gone".to_owned());
                };
                let pieces = match state.next() {
                    Ok(pieces) => pieces,
                    // It has ended, frozen as it was: asked anew, its memory is missed.
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        return Call::Broken("a frozen task has ended".to_owned());
                    }
                    Err(error) => return lost(&chunks, &error.to_string()).await,
                };
                let mut room = Some(room);
                for chunk in pieces {
                    if let Chunk::Pages(pages) = &chunk {
                        *sent += pages.data.len() as u64;
                    }
                    match room.take() {
                        Some(room) => room.send(say(chunk)),
                        None => drop(chunks.send(say(chunk)).await),
                    }
                }
                state.speak(host, &passage.migration);
            }
        }
    }
}

/// Tells the destination that the rest will never come.
async fn lost(chunks: &mpsc::Sender<PostCopyChunk>, reason: &str) -> Call {
    let chunk = Some(Chunk::Lost(reason.to_owned()));
    let _ = chunks.send(PostCopyChunk { chunk }).await;
    // Taken by the connection before it goes.
    let _ = tokio::time::timeout(PAUSE_MAX, chunks.closed()).await;
    Call::Told(reason.to_owned())
}

/// Also where the destination refused: what it lacks is only here, so it is asked again.
fn broken(status: &Status) -> Call {
    match problem(status) {
        Some(Problem::Failed(failure)) => Call::Broken(failure.message),
        _ => Call::Broken(said(status)),
    }
}

struct State {
    /// None: nothing can be given.
    left: Option<Left>,
    /// The destination has said all that it misses.
    told: bool,
    on_its_way: u64,
    max_bandwidth: Option<u64>,
    total: u64,
    began: Instant,
    spoke: Instant,
    sent: u64,
}

impl State {
    /// False: it asks for what can't be.
    fn hear(&mut self, word: Word) -> bool {
        match word {
            Word::Missing(span) => {
                let end = span
                    .pages
                    .checked_mul(PAGE)
                    .and_then(|length| length.checked_add(span.address));
                let (Some(end), true) = (end, span.address.is_multiple_of(PAGE)) else {
                    return false;
                };
                let start = span.address;
                self.total += span.pages;
                match &mut self.left {
                    Some(left) => return left.misses(span.task, Span { start, end }),
                    None => return true,
                }
            }
            Word::Told(_) => self.told = true,
            Word::Want(span) => {
                if let Some(left) = &mut self.left {
                    left.wants(span.task, span.address);
                }
            }
            Word::Got(bytes) => self.on_its_way = self.on_its_way.saturating_sub(bytes),
            Word::Whole(_) => {}
        }
        true
    }

    fn may_send(&self) -> bool {
        self.told
            && self.on_its_way < WINDOW
            && self.left.as_ref().is_some_and(|left| !left.is_empty())
    }

    /// When more may go. What somebody waits for is not held up.
    fn due(&self) -> Instant {
        match (self.max_bandwidth, &self.left) {
            (Some(rate), Some(left)) if !left.is_wanted() => {
                self.began + Duration::from_secs_f64(self.sent as f64 / rate.max(1) as f64)
            }
            _ => self.began,
        }
    }

    /// Reads some tens of microseconds' worth of memory: not worth another thread.
    fn next(&mut self) -> std::io::Result<Vec<Chunk>> {
        let piece = match &mut self.left {
            Some(left) => left.read_next()?,
            None => None,
        };
        let Some(piece) = piece else {
            return Ok(Vec::new());
        };
        let mut chunks = Vec::new();
        for Frame {
            task,
            address,
            content,
        } in piece.frames
        {
            if let Content::Pages { bytes: data, hash } = content {
                self.on_its_way += data.len() as u64;
                self.sent += data.len() as u64;
                chunks.push(Chunk::Pages(MemoryPages {
                    task,
                    address,
                    data,
                    hash,
                }));
            }
        }
        for span in piece.zero {
            chunks.push(Chunk::Zero(MemorySpan {
                task: piece.task,
                address: span.start,
                pages: span.pages(),
            }));
        }
        Ok(chunks)
    }

    fn speak(&mut self, host: &Host, migration: &MigrationId) {
        if self.spoke.elapsed() < WORD {
            return;
        }
        self.spoke = Instant::now();
        let took = self.began.elapsed().as_secs_f64();
        let progress = Progress {
            pages_left: self.left.as_ref().map_or(0, Left::pages),
            pages_total: self.total,
            bytes_per_s: (self.sent as f64 / took) as u64,
            ..Progress::default()
        };
        host.progress.tell(migration, progress);
    }
}
