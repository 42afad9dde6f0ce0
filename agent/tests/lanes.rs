//! Memory over lanes with real TLS on loopback; and lanes that must not get through.

use std::sync::Arc;

use bytes::Bytes;
use godwit_agent::transfer::{
    Doors, Expected,
    memory::{
        Arriving, LaneError, Lanes, MemoryError, Pace, Packer, accept,
        wire::{self, Kind, PROTOCOL, Reader, Record},
    },
    protocol::Passage,
};
use godwit_proto::{
    tls::{self, Authority, Credentials, Dialed, Identity, Role, Target},
    transfer::{MemoryClose, MemoryOpen},
};
use godwit_runtime::memory::{Content, Fingerprint, Frame, PAGE};
use godwit_types::{
    CommandFailure, Compression, ContainerId, FailureKind, Generation, HostName, MigrationId,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_stream::StreamExt;

/// A destination `h2` that awaits one container from `h1`.
struct Destination {
    authority: Authority,
    target: Target,
    doors: Arc<Doors>,
}

const ROOM: u64 = 64 << 20;
const AT: u64 = 0x7f00_0000_0000;

fn passage() -> Passage {
    Passage {
        carried: true,
        migration: MigrationId::from_bytes([1; 8]),
        container: ContainerId::from_bytes([2; 32]),
        generation: Generation(2),
    }
}

fn credentials(authority: &Authority, role: Role, name: &str) -> Credentials {
    let identity = Identity {
        cluster: "blue".into(),
        role,
        name: name.into(),
    };
    authority.issue(&identity).unwrap()
}

impl Destination {
    async fn start() -> Self {
        tls::install_crypto();
        let (authority, _) = Authority::create("blue").unwrap();
        let doors = Arc::new(Doors::default());
        let Passage {
            migration,
            container,
            generation,
            ..
        } = passage();
        let from = HostName::new("h1").unwrap();
        let expected = Expected {
            migration,
            generation,
            from,
        };
        doors.open(&container, ROOM, expected);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target {
            address: listener.local_addr().unwrap().to_string(),
            cluster: "blue".into(),
            role: Role::Host,
            name: Some("h2".into()),
        };
        let config = credentials(&authority, Role::Host, "h2").server_config();
        let config = tls::offering(&config.unwrap(), PROTOCOL);
        let incoming = tls::incoming(listener, config, "blue".into());
        let name = HostName::new("h2").unwrap();
        let mut others = accept::split(incoming, doors.clone(), name);
        tokio::spawn(async move { while others.next().await.is_some() {} });
        Self {
            authority,
            target,
            doors,
        }
    }

    async fn open(&self, count: u32) -> Result<Lanes, LaneError> {
        self.open_as(Role::Host, "h1", &passage(), count).await
    }

    async fn open_as(
        &self,
        role: Role,
        name: &str,
        passage: &Passage,
        count: u32,
    ) -> Result<Lanes, LaneError> {
        let config = credentials(&self.authority, role, name).client_config();
        Lanes::open(&config.unwrap(), &self.target, count, passage).await
    }

    fn arriving(&self) -> Arc<Arriving> {
        self.doors.memory(&passage(), "h1").unwrap()
    }

    /// Sends these records on a connection of its own, and answers how they were refused.
    async fn refuses(&self, records: &[Record]) -> CommandFailure {
        let config = credentials(&self.authority, Role::Host, "h1").client_config();
        let mut stream: Dialed = tls::dial_as(&config.unwrap(), &self.target, PROTOCOL)
            .await
            .unwrap();
        for record in records {
            wire::write(&mut stream, record).await.unwrap();
        }
        stream.flush().await.unwrap();
        let mut reader = Reader::default();
        loop {
            let answer = reader.read(&mut stream).await.unwrap().expect("an answer");
            match answer.kind {
                Kind::Done => {}
                Kind::Failed => return answer.failure().unwrap(),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn pages(task: u32, address: u64, count: u64) -> Frame {
    let bytes = (0..count * PAGE).map(|at| (at / 7 + address / PAGE) as u8);
    Frame::pages(task, address, bytes.collect())
}

async fn send(lanes: &mut Lanes, frames: Vec<Frame>) -> std::io::Result<()> {
    send_packed(lanes, frames, Compression::Off).await
}

async fn send_packed(
    lanes: &mut Lanes,
    frames: Vec<Frame>,
    compress: Compression,
) -> std::io::Result<()> {
    let packer = Packer::new(compress).unwrap();
    let mut writer = lanes.writer(Pace::new(None), packer);
    let (writer, sent) = tokio::task::spawn_blocking(move || {
        let mut frames = frames.into_iter();
        let sent = frames.try_for_each(|frame| writer.write(frame).map(drop));
        (writer, sent)
    })
    .await
    .unwrap();
    lanes.count(writer);
    sent
}

fn print(frames: &[Frame]) -> Fingerprint {
    let mut print = Fingerprint::of(frames[0].task);
    for frame in frames {
        if let Content::Pages { bytes, .. } = &frame.content {
            print.add(frame.address, bytes);
        }
    }
    print
}

fn open(lane: u32, lanes: u32) -> Record {
    let open = MemoryOpen {
        open: Some(passage().opening()),
        lane,
        lanes,
    };
    Record::message(Kind::Open, &open)
}

#[tokio::test]
async fn every_page_arrives_and_is_compared() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(3).await.unwrap();
    let frames: Vec<Frame> = (0..40)
        .map(|number| pages(7, AT + number * 64 * PAGE, 64 - number))
        .collect();
    send(&mut lanes, frames.clone()).await.unwrap();
    lanes.barrier().await.unwrap();
    // In place already, and some of it is taken back.
    let arriving = destination.arriving();
    assert!(matches!(arriving.take(), Err(MemoryError::NotWhole { .. })));
    let gone = Frame {
        content: Content::Zero(64),
        ..frames[0].clone()
    };
    send(&mut lanes, vec![gone]).await.unwrap();
    let there = print(&frames[1..]);
    let sent: u64 = frames.iter().map(|frame| frame.end() - frame.address).sum();
    assert_eq!(lanes.close(Some(&[there])).await.unwrap(), sent);
    let store = arriving.take().unwrap().unwrap();
    assert_eq!(store.fingerprints().unwrap(), [there]);
}

#[tokio::test]
async fn what_is_compressed_arrives_as_it_was() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(2).await.unwrap();
    let frames: Vec<Frame> = (0..8)
        .map(|number| pages(7, AT + number * 64 * PAGE, 64))
        .collect();
    let there = print(&frames);
    send_packed(&mut lanes, frames, Compression::On)
        .await
        .unwrap();
    let bytes = lanes.close(Some(&[there])).await.unwrap();
    assert!(bytes < 8 * 64 * PAGE / 4, "{bytes} bytes went over");
    let store = destination.arriving().take().unwrap().unwrap();
    assert_eq!(store.bytes(), 8 * 64 * PAGE);
}

#[tokio::test]
async fn a_frame_that_changed_on_its_way_is_refused_and_named() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(2).await.unwrap();
    let mut bad = pages(7, AT + 64 * PAGE, 64);
    if let Content::Pages { bytes, .. } = &mut bad.content {
        let mut other = bytes.to_vec();
        other[100_000] ^= 4;
        *bytes = other.into();
    }
    let frames = vec![pages(7, AT, 64), bad, pages(7, AT + 128 * PAGE, 64)];
    send(&mut lanes, frames).await.unwrap();
    let error = lanes.barrier().await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Internal);
    let text = error.to_string();
    for part in ["host `h2`", "task 7", "0x7f0000040000", "hash"] {
        assert!(text.contains(part), "{text}");
    }
    drop(lanes);
    assert!(destination.arriving().take().is_err());
}

#[tokio::test]
async fn memory_that_is_not_what_the_tasks_hold_is_refused_and_named() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(2).await.unwrap();
    let frames = vec![pages(7, AT, 64), pages(9, AT, 64)];
    send(&mut lanes, frames.clone()).await.unwrap();
    // One page that was written, and not seen.
    let there = [print(&frames[..1]), print(&[pages(9, AT, 63)])];
    let error = lanes.close(Some(&there)).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Internal);
    let text = error.to_string();
    assert!(
        text.contains("host `h2`") && text.contains("task 9"),
        "{text}"
    );
    assert!(destination.arriving().take().is_err());
}

#[tokio::test]
async fn only_the_awaited_lanes_get_in() {
    let destination = Destination::start().await;
    let refused = async |role, name, passage: Passage, count| {
        let opened = destination.open_as(role, name, &passage, count).await;
        let error = opened.err().expect("a refusal");
        assert!(matches!(error, LaneError::Refused(_)), "{error:?}");
        error.to_string()
    };
    assert!(refused(Role::Host, "h3", passage(), 2).await.contains("h3"));
    assert!(
        refused(Role::Member, "h1", passage(), 2)
            .await
            .contains("host")
    );
    let stale = Passage {
        generation: Generation(1),
        ..passage()
    };
    assert!(
        refused(Role::Host, "h1", stale, 2)
            .await
            .contains("generation")
    );
    assert!(
        refused(Role::Host, "h1", passage(), 17)
            .await
            .contains("lane")
    );
    // What was refused took no place.
    destination.open(2).await.unwrap();
    assert!(
        refused(Role::Host, "h1", passage(), 2)
            .await
            .contains("lane")
    );
}

#[tokio::test]
async fn records_that_are_not_the_protocols_are_refused() {
    let packed =
        |count: u64, bytes: Vec<u8>| Record::frame(pages(7, AT, count), Some(bytes.into()));
    let bomb = || zstd::bulk::compress(&vec![0; 16 << 20], 1).unwrap();
    let close = |frames, bytes| {
        let close = MemoryClose {
            frames,
            bytes,
            fingerprints: None,
        };
        Record::message(Kind::Close, &close)
    };
    let frame = || Record::frame(pages(7, AT, 2), None);
    let body = |kind, bytes: &'static [u8]| {
        let mut record = Record::bare(kind);
        record.body = Bytes::from_static(bytes);
        record
    };
    for records in [
        vec![frame()],
        vec![Record::bare(Kind::Mark)],
        vec![close(0, 0)],
        vec![body(Kind::Open, b"nonsense")],
        vec![Record::bare(Kind::Open)],
        vec![open(0, 1), open(0, 1)],
        vec![open(0, 1), Record::bare(Kind::Done)],
        vec![open(0, 1), frame(), close(2, 8192)],
        vec![open(0, 1), frame(), close(1, 8191)],
        vec![open(0, 1), body(Kind::Close, b"nonsense")],
        vec![open(0, 1), packed(2, b"nonsense".to_vec())],
        vec![open(0, 1), packed(64, bomb())],
        vec![open(0, 1), packed(0, bomb())],
        vec![open(0, 1), body(Kind::Pages, b"short")],
        vec![open(0, 1), Record::bare(Kind::Pages)],
        vec![open(0, 1), Record::bare(Kind::Zero)],
        vec![open(0, 1), body(Kind::Mark, b"x")],
        vec![open(0, 1), Record::frame(pages(7, AT + 1, 2), None)],
    ] {
        let destination = Destination::start().await;
        let failure = destination.refuses(&records).await;
        assert_eq!(failure.kind, FailureKind::Peer, "{}", failure.message);
        assert!(failure.message.starts_with("host `h2`: "));
        assert!(!matches!(destination.arriving().take(), Ok(Some(_))));
    }
}

#[tokio::test]
async fn more_than_was_announced_is_refused() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(2).await.unwrap();
    let frames = (0..=ROOM / PAGE / 64).map(|number| pages(7, AT + number * 64 * PAGE, 64));
    let _ = send(&mut lanes, frames.collect()).await;
    let error = lanes.barrier().await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Unfit, "{error}");
}

#[tokio::test]
async fn lanes_that_are_dropped_leave_nothing_that_could_be_used() {
    let destination = Destination::start().await;
    let mut lanes = destination.open(2).await.unwrap();
    send(&mut lanes, vec![pages(7, AT, 64)]).await.unwrap();
    lanes.barrier().await.unwrap();
    drop(lanes);
    let taken = destination.arriving().take();
    assert!(matches!(taken, Err(MemoryError::NotWhole { .. })));
}

#[tokio::test]
async fn a_host_that_knows_no_lanes_is_said_to() {
    let destination = Destination::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        address: listener.local_addr().unwrap().to_string(),
        ..destination.target.clone()
    };
    let config = credentials(&destination.authority, Role::Host, "h2").server_config();
    let _incoming = tls::incoming(listener, config.unwrap(), "blue".into());
    let config = credentials(&destination.authority, Role::Host, "h1").client_config();
    let opened = Lanes::open(&config.unwrap(), &target, 2, &passage()).await;
    let error = opened.err().expect("a refusal");
    assert!(matches!(error, LaneError::Dial(_)), "{error:?}");
    assert_eq!(error.kind(), FailureKind::Peer);
}
