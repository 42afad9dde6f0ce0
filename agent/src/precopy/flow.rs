//! One container's memory on its way: the session that knows what was sent, and the lanes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use godwit_proto::{
    failure::chain,
    tls::{Role, connected},
};
use godwit_runtime::{
    Moving,
    memory::{self, Fingerprint, RoundStats, Session},
};
use godwit_types::{
    CommandFailure, ContainerId, FailureKind, Generation, HostName, MigrationId, MigrationMode,
    MigrationOptions, Round,
};

use tonic::transport::Channel;
use tracing::info;

use super::layer::Layer;
use crate::{
    failures,
    host::Host,
    transfer::{
        memory::{LaneError, Lanes, Pace, Packer, Writer},
        protocol::Passage,
    },
};

/// How often a round says how far it is.
const WORD: Duration = Duration::from_millis(200);

pub struct Flow {
    migration: MigrationId,
    container: ContainerId,
    to: HostName,
    session: Session,
    lanes: Lanes,
    /// In the freeze there is no time to make one.
    channel: Channel,
    layer: Layer,
    leaves: Option<Leaves>,
    /// None: on its way with a pass.
    packer: Option<Packer>,
    /// Its rounds were sent no faster than was allowed.
    bounded: bool,
    /// What was told already.
    told: u64,
}

/// What is left in the freeze is only named, and sent after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaves {
    /// Bytes a second at most.
    pub max_bandwidth: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Round,
    Last,
    Leave,
}

impl Flow {
    pub async fn open(
        host: &Host,
        migration: &MigrationId,
        container: &ContainerId,
        generation: Generation,
        to: &HostName,
        address: &str,
        options: &MigrationOptions,
    ) -> Result<Self, CommandFailure> {
        let leaves = (options.mode == MigrationMode::PostCopy).then_some(Leaves {
            max_bandwidth: options.max_bandwidth,
        });
        let packer = Packer::new(options.compress).map_err(|error| failures::internal(&error))?;
        let passage = Passage {
            migration: migration.clone(),
            container: container.clone(),
            // The destination expects the generation after the commit.
            generation: generation.next(),
            carried: true,
        };
        // As many connections as there are cores to encrypt for them, within reason.
        let count = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        let target = host.peer(Role::Host, Some(to.as_str()), address);
        let lanes = Lanes::open(&host.tls, &target, count as u32, &passage)
            .await
            .map_err(|error| lane_failed(to, &error))?;
        let channel = connected(host.tls.clone(), target).await.map_err(|error| {
            let text = format!("host `{to}` can't be reached: {}", chain(&error));
            CommandFailure::new(FailureKind::Peer, text)
        })?;
        Ok(Self {
            migration: migration.clone(),
            container: container.clone(),
            to: to.clone(),
            session: host.runtime.session(),
            layer: Layer::new(host, passage),
            lanes,
            leaves,
            channel,
            packer: Some(packer),
            bounded: false,
            told: 0,
        })
    }

    pub fn migration(&self) -> &MigrationId {
        &self.migration
    }

    pub fn leaves(&self) -> Option<Leaves> {
        self.leaves
    }

    /// A connection to the destination.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Sent since this was asked last.
    pub fn bytes(&mut self) -> u64 {
        let sent = self.lanes.bytes() + self.layer.bytes() - self.told;
        self.told += sent;
        sent
    }

    /// A round of the writable layer and the volumes; over when the destination has applied it. Answers its bytes.
    pub async fn layer_round(
        &mut self,
        host: &Host,
        max_bandwidth: Option<u64>,
    ) -> Result<u64, CommandFailure> {
        let channel = self.channel();
        self.layer
            .round(host, &self.to, channel, max_bandwidth)
            .await
    }

    /// What the destination has of the writable layer and the volumes.
    pub fn take_layer(&mut self) -> Vec<Moving> {
        self.layer.take()
    }

    /// The container's processes. An error: it has ended.
    pub async fn processes(&self, host: &Host) -> Result<Vec<i32>, CommandFailure> {
        let found = host.runtime.processes(&self.container).await;
        let found = found.map_err(|error| failures::of_runtime(&error))?;
        if found.is_empty() {
            let text = "the container ended while its memory was being sent";
            return Err(CommandFailure::new(FailureKind::WrongState, text));
        }
        Ok(found)
    }

    /// One round; over when the destination has all of it. `tell` is given the pages so far.
    /// Answers the time it waited for the lanes, too.
    pub async fn round(
        &mut self,
        processes: &[i32],
        max_bandwidth: Option<u64>,
        tell: impl Fn(u64),
    ) -> Result<(Round, RoundStats, Duration), CommandFailure> {
        let began = Instant::now();
        let before = self.lanes.bytes();
        let pace = Pace::new(max_bandwidth);
        self.bounded = max_bandwidth.is_some();
        let (stats, mut waited) = self.pass(processes, Pass::Round, pace, tell).await?;
        let drained = Instant::now();
        let barrier = self.lanes.barrier().await;
        waited += drained.elapsed();
        barrier.map_err(|error| lane_failed(&self.to, &error))?;
        let round = Round {
            sent_bytes: self.lanes.bytes() - before,
            sent_pages: stats.sent,
            zero_pages: stats.zero,
            micros: began.elapsed().as_micros() as u64,
            ..Round::default()
        };
        Ok((round, stats, waited))
    }

    /// The last of it, while every task is stopped. Answers the bytes that were not told yet.
    pub async fn finish(mut self, host: &Host) -> Result<u64, CommandFailure> {
        let processes = self.processes(host).await?;
        let pass = if self.leaves.is_some() {
            Pass::Leave
        } else {
            Pass::Last
        };
        self.pass(&processes, pass, Pace::new(None), |_| {}).await?;
        // What is left behind can't be compared yet.
        let there = match host.live.verify_memory() && self.leaves.is_none() {
            true => Some(self.fingerprints(processes).await?),
            false => None,
        };
        let bytes = self.bytes();
        let Self {
            migration,
            lanes,
            session,
            to,
            ..
        } = self;
        let closed = lanes.close(there.as_deref()).await;
        // Not here: letting go of what is tracked takes its time, and the tasks are stopped.
        tokio::task::spawn_blocking(move || drop(session));
        closed.map_err(|error| lane_failed(&to, &error))?;
        if let Some(there) = there {
            let pages: u64 = there.iter().map(|print| print.pages).sum();
            let tasks = there.len();
            info!(%migration, tasks, pages, "memory is equal on both hosts");
        }
        Ok(bytes)
    }

    /// What the stopped tasks hold.
    async fn fingerprints(&self, processes: Vec<i32>) -> Result<Vec<Fingerprint>, CommandFailure> {
        tokio::task::spawn_blocking(move || memory::fingerprints(&processes))
            .await
            .expect("reading memory does not panic")
            .map_err(|error| unread(&error))
    }

    /// Looks, reads and writes on a thread that may wait. Dropped meanwhile, the thread ends as
    /// soon as it finds its lanes gone.
    async fn pass(
        &mut self,
        processes: &[i32],
        pass: Pass,
        pace: Pace,
        tell: impl Fn(u64),
    ) -> Result<(RoundStats, Duration), CommandFailure> {
        let mut session = std::mem::take(&mut self.session);
        let mut packer = match self.packer.take() {
            Some(packer) => packer,
            None => return Err(lane_failed(&self.to, &LaneError::Ended)),
        };
        packer.begin(pass == Pass::Round || !self.bounded);
        let mut writer = self.lanes.writer(pace, packer);
        let processes = processes.to_vec();
        let pages = Arc::new(AtomicU64::new(0));
        let counted = pages.clone();
        let mut work = tokio::task::spawn_blocking(move || {
            let mut waited = Duration::ZERO;
            let mut send = |frame: godwit_runtime::memory::Frame| {
                let count = (frame.end() - frame.address) / godwit_runtime::memory::PAGE;
                waited += writer.write(frame)?;
                counted.fetch_add(count, Ordering::Relaxed);
                Ok(())
            };
            let stats = match pass {
                Pass::Round => session.round(&processes, &mut send),
                Pass::Last => session.finish(&processes, &mut send),
                Pass::Leave => session.leave(&processes, &mut send),
            };
            (session, writer, stats.map(|stats| (stats, waited)))
        });
        let done: (Session, Writer, io::Result<(RoundStats, Duration)>) = loop {
            tokio::select! {
                done = &mut work => match done {
                    Ok(done) => break done,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                () = tokio::time::sleep(WORD) => tell(pages.load(Ordering::Relaxed)),
            }
        };
        let (session, writer, stats) = done;
        self.session = session;
        self.packer = Some(self.lanes.count(writer));
        match stats {
            Ok(stats) => Ok(stats),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // A lane went away; its answer says why.
                match self.lanes.barrier().await {
                    Err(error) => Err(lane_failed(&self.to, &error)),
                    Ok(()) => Err(lane_failed(&self.to, &LaneError::Ended)),
                }
            }
            Err(error) => Err(unread(&error)),
        }
    }
}

fn unread(error: &io::Error) -> CommandFailure {
    let text = format!("memory can't be read: {error}");
    CommandFailure::new(FailureKind::Internal, text)
}

fn lane_failed(to: &HostName, error: &LaneError) -> CommandFailure {
    let text = format!("memory can't be sent to host `{to}`: {}", chain(error));
    CommandFailure::new(error.kind(), text)
}
