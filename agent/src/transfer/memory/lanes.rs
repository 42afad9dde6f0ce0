//! The lanes of a source: opened before the first round, closed in the freeze.

use std::{
    io,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use godwit_proto::{
    tls::{self, Target},
    transfer::{MemoryClose, MemoryFingerprint, MemoryFingerprints, MemoryOpen},
};
use godwit_runtime::memory::{Content, Fingerprint, Frame};
use godwit_types::{CommandFailure, FailureKind};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{
    super::protocol::Passage,
    compress::Packer,
    wire::{self, Kind, PROTOCOL, Reader, Record, WireError},
};

/// Frames that wait for a lane's connection.
const AHEAD: usize = 16;
/// A destination that ends a lane has said why, or will soon.
const LAST_WORD: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error("no connection")]
    Dial(#[source] io::Error),
    /// What the destination says.
    #[error(transparent)]
    Refused(CommandFailure),
    #[error("the connection broke")]
    Broken(#[from] WireError),
    #[error("the destination ended a lane")]
    Ended,
}

impl LaneError {
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Refused(failure) => failure.kind,
            Self::Dial(_) | Self::Broken(_) | Self::Ended => FailureKind::Peer,
        }
    }
}

/// Dropped, the destination forgets what came.
pub struct Lanes {
    lanes: Vec<Lane>,
    /// They end with this.
    _carriers: JoinSet<()>,
}

struct Lane {
    records: mpsc::Sender<Record>,
    answers: mpsc::Receiver<Result<(), LaneError>>,
    frames: u64,
    bytes: u64,
}

impl Lanes {
    /// So many, each on a connection of its own.
    pub async fn open(
        tls: &Arc<ClientConfig>,
        target: &Target,
        count: u32,
        passage: &Passage,
    ) -> Result<Self, LaneError> {
        let opened = (0..count).map(|lane| async move {
            let mut stream = tls::dial_as(tls, target, PROTOCOL)
                .await
                .map_err(LaneError::Dial)?;
            let open = MemoryOpen {
                open: Some(passage.opening()),
                lane,
                lanes: count,
            };
            let broken = |error| LaneError::Broken(WireError::Broken(error));
            let open = Record::message(Kind::Open, &open);
            wire::write(&mut stream, &open).await.map_err(broken)?;
            stream.flush().await.map_err(broken)?;
            let mut reader = Reader::default();
            answer(&mut reader, &mut stream).await?;
            Ok::<_, LaneError>((stream, reader))
        });
        let mut carriers = JoinSet::new();
        let mut lanes = Vec::new();
        for (stream, reader) in futures::future::try_join_all(opened).await? {
            let (records, waiting) = mpsc::channel(AHEAD);
            let (answered, answers) = mpsc::channel(1);
            carriers.spawn(carry(stream, reader, waiting, answered));
            lanes.push(Lane {
                records,
                answers,
                frames: 0,
                bytes: 0,
            });
        }
        Ok(Self {
            lanes,
            _carriers: carriers,
        })
    }

    /// Where a thread writes frames to.
    pub fn writer(&self, pace: Pace, packer: Packer) -> Writer {
        let records = self.lanes.iter().map(|lane| lane.records.clone());
        Writer {
            lanes: records.collect(),
            counts: vec![(0, 0); self.lanes.len()],
            pace,
            packer,
        }
    }

    /// Counts what a writer wrote. Answers its packer.
    pub fn count(&mut self, writer: Writer) -> Packer {
        for (lane, (frames, bytes)) in self.lanes.iter_mut().zip(writer.counts) {
            lane.frames += frames;
            lane.bytes += bytes;
        }
        writer.packer
    }

    /// Waits until everything that was written is in place.
    pub async fn barrier(&mut self) -> Result<(), LaneError> {
        self.all(|_, _| Record::bare(Kind::Mark)).await
    }

    /// The end. `there`: what the tasks hold, for the destination to compare with what came.
    /// Answers the bytes that came over, in all.
    pub async fn close(mut self, there: Option<&[Fingerprint]>) -> Result<u64, LaneError> {
        let bytes = self.bytes();
        self.all(|number, lane| {
            let close = MemoryClose {
                frames: lane.frames,
                bytes: lane.bytes,
                fingerprints: there.filter(|_| number == 0).map(fingerprints),
            };
            Record::message(Kind::Close, &close)
        })
        .await?;
        Ok(bytes)
    }

    pub fn bytes(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// Sends on every lane, and waits for every answer.
    async fn all(&mut self, make: impl Fn(usize, &Lane) -> Record) -> Result<(), LaneError> {
        let asked = self.lanes.iter_mut().enumerate().map(|(number, lane)| {
            let record = make(number, lane);
            async move {
                // Not taken: the answer says why.
                let _ = lane.records.send(record).await;
                lane.answers.recv().await.unwrap_or(Err(LaneError::Ended))
            }
        });
        futures::future::try_join_all(asked).await.map(drop)
    }
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

/// The next answer, when it is that all is well.
async fn answer(reader: &mut Reader, from: &mut (impl AsyncRead + Unpin)) -> Result<(), LaneError> {
    let record = reader.read(from).await?.ok_or(LaneError::Ended)?;
    match record.kind {
        Kind::Done => Ok(()),
        Kind::Failed => Err(record
            .failure()
            .map_or(LaneError::Ended, LaneError::Refused)),
        _ => Err(LaneError::Ended),
    }
}

/// One lane, until nobody gives it records any more or it breaks.
async fn carry(
    stream: impl AsyncRead + AsyncWrite,
    mut reader: Reader,
    mut records: mpsc::Receiver<Record>,
    answers: mpsc::Sender<Result<(), LaneError>>,
) {
    let (mut from, mut to) = tokio::io::split(stream);
    let listen = async {
        loop {
            if let Err(error) = answer(&mut reader, &mut from).await {
                return error;
            }
            // Nobody waits for it.
            let _ = answers.send(Ok(())).await;
        }
    };
    let send = async {
        while let Some(record) = records.recv().await {
            wire::write(&mut to, &record).await?;
            if records.is_empty() {
                to.flush().await?;
            }
        }
        Ok(())
    };
    let mut listen = pin!(listen);
    let error = tokio::select! {
        error = &mut listen => error,
        sent = send => match sent {
            Ok(()) => return,
            Err(error) => match timeout(LAST_WORD, listen).await {
                Ok(why) => why,
                Err(_) => LaneError::Broken(WireError::Broken(error)),
            }
        },
    };
    // From now on a writer finds its lane gone.
    drop(records);
    let _ = answers.send(Err(error)).await;
}

/// Writes frames to their lanes, from a thread that may wait.
pub struct Writer {
    lanes: Vec<mpsc::Sender<Record>>,
    counts: Vec<(u64, u64)>,
    pace: Pace,
    packer: Packer,
}

impl Writer {
    /// An error: the lane is gone, and its answer says why.
    /// Answers for how long it had to wait.
    pub fn write(&mut self, frame: Frame) -> io::Result<Duration> {
        let at = (frame.cell() % self.lanes.len() as u64) as usize;
        let (pages, packed) = match &frame.content {
            Content::Pages { bytes, .. } => (bytes.clone(), self.packer.pack(bytes)?),
            Content::Zero(_) | Content::Later(_) => (Bytes::new(), None),
        };
        let record = Record::frame(frame, packed);
        let bytes = record.body.len();
        let began = Instant::now();
        self.pace.keep(bytes as u64);
        self.lanes[at]
            .blocking_send(record)
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        let waited = began.elapsed();
        self.packer.sent(&pages, bytes, waited)?;
        let (frames, sent) = &mut self.counts[at];
        *frames += 1;
        *sent += bytes as u64;
        Ok(waited)
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
