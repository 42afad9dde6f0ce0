//! A push from source to destination over real TLS on loopback, with plain directories on both
//! sides; and pushes that must not get through.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use godwit_agent::transfer::{
    Doors, Expected, Sink,
    memory::Pace,
    protocol::{Passage, chunk},
    service::{Late, Sinks, TransferService},
    source::{self, SourceError},
};
use godwit_proto::{
    limits,
    tls::{self, Authority, Credentials, Identity, Role, Target},
    transfer::{
        Close, End, File as Begin, PushChunk, push_chunk::Chunk, transfer_client::TransferClient,
    },
};
use godwit_runtime::{
    LAYER,
    checkpoint::CheckpointFile,
    rootfs::diff::{self, Mark},
};
use godwit_types::{CommandFailure, ContainerId, FailureKind, Generation, HostName, MigrationId};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Server},
};

#[derive(Clone)]
struct Folder {
    dir: PathBuf,
    free: u64,
}

impl Sink for Folder {
    type File = File;
    fn create(&mut self, name: &str) -> io::Result<File> {
        if name.split('/').any(|part| part == ".." || part.is_empty()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap())?;
        File::create(path)
    }
    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }
    fn free(&self) -> u64 {
        self.free
    }
}

impl Sinks for Folder {
    type Sink = Self;
    fn sink(&self, _: &ContainerId) -> Result<Self, CommandFailure> {
        Ok(self.clone())
    }
    /// As the runtime does, on `upper` beside what came.
    async fn apply(&self, _: &ContainerId, _: &str, base: Mark) -> Result<Mark, CommandFailure> {
        let failed = |error: &dyn std::fmt::Display| {
            CommandFailure::new(FailureKind::Internal, error.to_string())
        };
        let part = fs::read(self.dir.join(LAYER)).map_err(|error| failed(&error))?;
        let upper = self.dir.join("upper");
        let applied = match base {
            Mark::NOTHING => diff::unpack(part.as_slice(), &upper),
            base => diff::apply(part.as_slice(), &upper, &self.dir.join("aside"), base),
        };
        applied
            .map(|report| report.mark)
            .map_err(|error| failed(&error))
    }
    async fn late(&self, _: &Passage, _: &str) -> Result<Late, CommandFailure> {
        Ok(Late::Whole)
    }
}

/// A destination `h2` that awaits one container from `h1`.
struct Destination {
    authority: Authority,
    address: String,
    doors: Arc<Doors>,
    dir: tempfile::TempDir,
}

fn passage() -> Passage {
    Passage {
        carried: false,
        migration: MigrationId::from_bytes([1; 8]),
        container: ContainerId::from_bytes([2; 32]),
        generation: Generation(2),
    }
}

fn host(authority: &Authority, name: &str) -> Credentials {
    let identity = Identity {
        cluster: "blue".into(),
        role: Role::Host,
        name: name.into(),
    };
    authority.issue(&identity).unwrap()
}

impl Destination {
    async fn start(free: u64) -> Self {
        tls::install_crypto();
        let (authority, _) = Authority::create("blue").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let doors = Arc::new(Doors::default());
        let Passage {
            migration,
            container,
            generation,
            ..
        } = passage();
        let from = HostName::new("h1").unwrap();
        doors.open(
            &container,
            u64::MAX,
            Expected {
                migration,
                generation,
                from,
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = host(&authority, "h2").server_config().unwrap();
        let sinks = Folder {
            dir: dir.path().to_owned(),
            free,
        };
        let name = HostName::new("h2").unwrap();
        let service = TransferService::server(name, doors.clone(), sinks);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(tls::incoming(listener, config, "blue".into())),
        );
        Self {
            authority,
            address,
            doors,
            dir,
        }
    }

    fn channel(&self, caller: &str) -> Channel {
        let target = Target {
            address: self.address.clone(),
            cluster: "blue".into(),
            role: Role::Host,
            name: Some("h2".into()),
        };
        tls::channel(
            host(&self.authority, caller).client_config().unwrap(),
            target,
        )
    }

    /// Pushes these chunks after an open, and answers how it was refused.
    async fn refuses(&self, chunks: Vec<Chunk>) -> Status {
        let mut all = vec![passage().open()];
        all.extend(chunks.into_iter().map(chunk));
        let client = &mut TransferClient::new(self.channel("h1"));
        let status = client.push(tokio_stream::iter(all)).await.unwrap_err();
        self.holds_nothing();
        status
    }

    fn holds_nothing(&self) {
        assert_eq!(files(self.dir.path()), Vec::<PathBuf>::new());
        assert!(self.stage().is_err());
    }

    /// As a stage would ask.
    fn stage(&self) -> Result<(), CommandFailure> {
        self.doors
            .shut_complete(&passage().container, &passage().migration)
            .map(drop)
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

/// Files of many sizes: empty, one byte, around a chunk, around a read.
fn checkpoint(dir: &Path) -> Vec<CheckpointFile> {
    let sizes = [
        0,
        1,
        limits::CHUNK - 1,
        limits::CHUNK,
        limits::CHUNK + 1,
        5 * limits::CHUNK + 7,
    ];
    let write = |(index, size): (usize, usize)| {
        let path = dir.join(format!("{index}"));
        let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + index) as u8).collect();
        fs::write(&path, bytes).unwrap();
        CheckpointFile {
            name: format!("criu/pages-{index}.img"),
            path,
            size: size as u64,
        }
    };
    sizes.into_iter().enumerate().map(write).collect()
}

fn begin(name: &str, size: u64) -> Chunk {
    Chunk::File(Begin {
        name: name.into(),
        size,
    })
}

fn data(bytes: &'static [u8]) -> Chunk {
    Chunk::Data(Bytes::from_static(bytes))
}

fn end(bytes: &[u8]) -> Chunk {
    Chunk::End(End {
        hash: Bytes::copy_from_slice(blake3::hash(bytes).as_bytes()),
    })
}

const ROOM: u64 = 1 << 30;

#[tokio::test]
async fn every_byte_arrives_and_then_it_may_be_staged() {
    let destination = Destination::start(ROOM).await;
    let from = tempfile::tempdir().unwrap();
    let sent = checkpoint(from.path());
    let total: u64 = sent.iter().map(|file| file.size).sum();
    assert_eq!(
        destination.stage().unwrap_err().kind,
        FailureKind::WrongState
    );
    let bytes = source::push(destination.channel("h1"), &passage(), sent.clone())
        .await
        .unwrap();
    assert_eq!(bytes, total);
    for file in &sent {
        let came = fs::read(destination.dir.path().join(&file.name)).unwrap();
        assert!(came == fs::read(&file.path).unwrap(), "{}", file.name);
    }
    // Asked again, as after a lost answer.
    source::push(destination.channel("h1"), &passage(), sent.clone())
        .await
        .unwrap();
    destination.stage().unwrap();
    // Now it is being restored: nothing may be written under it.
    let refused = source::push(destination.channel("h1"), &passage(), sent)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FailureKind::WrongState, "{refused}");
}

/// A file of this content, as a part is sent.
fn part(dir: &Path, stream: &[u8]) -> CheckpointFile {
    let path = dir.join("part");
    fs::write(&path, stream).unwrap();
    CheckpointFile {
        name: LAYER.into(),
        path,
        size: stream.len() as u64,
    }
}

#[tokio::test]
async fn parts_of_a_layer_are_applied_one_after_the_other_and_nothing_else_is() {
    let destination = Destination::start(ROOM).await;
    let from = tempfile::tempdir().unwrap();
    let source = from.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut ahead = diff::Ahead::new(&source);
    let mut next = |name: &str| {
        fs::write(source.join(name), name).unwrap();
        ahead.look(diff::Mapped::default).unwrap();
        let mut stream = Vec::new();
        ahead.part(&mut stream, u64::MAX).unwrap().unwrap();
        stream
    };
    let pace = || Pace::new(None);
    let push = async |stream: &[u8]| {
        let part = part(from.path(), stream);
        source::push_layer(destination.channel("h1"), &passage(), part, pace()).await
    };
    let (first, second, third) = (next("a"), next("b"), next("c"));
    assert_eq!(push(&first).await.unwrap(), first.len() as u64);
    push(&second).await.unwrap();
    let upper = destination.dir.path().join("upper");
    for name in ["a", "b"] {
        assert_eq!(fs::read_to_string(upper.join(name)).unwrap(), name);
    }
    assert_eq!(
        destination.stage().unwrap_err().kind,
        FailureKind::WrongState,
        "a layer alone is no container"
    );
    // Only what it is called, and only from whom it is awaited.
    let mut other = part(from.path(), &third);
    other.name = "rootfs".into();
    let refused = source::push_layer(destination.channel("h1"), &passage(), other, pace()).await;
    assert!(refused.unwrap_err().to_string().contains("name"));
    let stranger = part(from.path(), &third);
    let refused = source::push_layer(destination.channel("h3"), &passage(), stranger, pace()).await;
    let Err(SourceError::Peer(status)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    // Not what the next one is against: and after that, nothing is.
    push(&second).await.unwrap_err();
    push(&third).await.unwrap_err();
}

#[tokio::test]
async fn only_the_awaited_push_gets_in() {
    let destination = Destination::start(ROOM).await;
    let refused = source::push(destination.channel("h3"), &passage(), vec![])
        .await
        .unwrap_err();
    let SourceError::Peer(status) = refused else {
        panic!("{refused}")
    };
    assert_eq!(status.code(), Code::PermissionDenied);

    let mut stale = passage();
    stale.generation = Generation(1);
    let refused = source::push(destination.channel("h1"), &stale, vec![])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FailureKind::WrongState, "{refused}");
    assert!(refused.to_string().contains("host `h2`"), "{refused}");

    let mut other = passage();
    other.container = ContainerId::from_bytes([3; 32]);
    let refused = source::push(destination.channel("h1"), &other, vec![])
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), FailureKind::WrongState, "{refused}");
    destination.holds_nothing();
}

#[tokio::test]
async fn a_file_that_is_not_what_it_says_is_refused() {
    let destination = Destination::start(ROOM).await;
    let corrupt = vec![begin("a", 3), data(b"abc"), end(b"abd")];
    assert_eq!(destination.refuses(corrupt).await.code(), Code::DataLoss);
    let short = vec![begin("a", 4), data(b"abc"), end(b"abc")];
    assert_eq!(destination.refuses(short).await.code(), Code::DataLoss);
    let long = vec![begin("a", 2), data(b"abc"), end(b"abc")];
    assert_eq!(destination.refuses(long).await.code(), Code::DataLoss);
    let wrong = vec![
        begin("a", 3),
        data(b"abc"),
        end(b"abc"),
        Chunk::Close(Close { files: 2, bytes: 3 }),
    ];
    assert_eq!(
        destination.refuses(wrong).await.code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn an_order_that_is_not_the_protocols_is_refused() {
    let destination = Destination::start(ROOM).await;
    let close = || Chunk::Close(Close { files: 0, bytes: 0 });
    let Some(open) = passage().open().chunk else {
        unreachable!()
    };
    for chunks in [
        vec![data(b"abc")],
        vec![end(b"")],
        vec![open],
        vec![begin("a", 3), begin("b", 3)],
        vec![begin("a", 3), close()],
        vec![begin("a", 0), end(b""), begin("a", 0)],
        vec![begin("a", 3), data(b"")],
        vec![
            begin("a", ROOM),
            Chunk::Data(vec![0; limits::CHUNK + 1].into()),
        ],
    ] {
        let status = destination.refuses(chunks).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let client = &mut TransferClient::new(destination.channel("h1"));
    let unopened = tokio_stream::iter([chunk(close())]);
    let status = client.push(unopened).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_refused() {
    let destination = Destination::start(ROOM).await;
    for name in ["../a", "criu/../../a", "/etc/a", ""] {
        let status = destination
            .refuses(vec![begin(name, 3), data(b"abc")])
            .await;
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_before_it_is_sent() {
    let destination = Destination::start(10).await;
    let status = destination
        .refuses(vec![
            begin("a", 3),
            data(b"abc"),
            end(b"abc"),
            begin("b", 8),
        ])
        .await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status
            .message()
            .contains("no room: 11 bytes needed, 10 free"),
        "{status}"
    );
    assert!(
        destination
            .refuses(vec![begin("a", u64::MAX)])
            .await
            .message()
            .contains("no room")
    );
}

#[tokio::test]
async fn a_push_that_breaks_off_leaves_nothing_and_can_be_repeated() {
    let destination = Destination::start(ROOM).await;
    // Ended in good order, in the middle of a file.
    let status = destination.refuses(vec![begin("a", 6), data(b"abc")]).await;
    assert_eq!(status.code(), Code::Aborted, "{status}");

    // Cut: the caller goes away in the middle.
    let (sender, receiver) = mpsc::channel::<PushChunk>(4);
    let channel = destination.channel("h1");
    let push = tokio::spawn(async move {
        TransferClient::new(channel)
            .push(ReceiverStream::new(receiver))
            .await
    });
    sender.send(passage().open()).await.unwrap();
    sender.send(chunk(begin("a", 6))).await.unwrap();
    sender.send(chunk(data(b"abc"))).await.unwrap();
    within("the file began", || {
        !files(destination.dir.path()).is_empty()
    })
    .await;
    push.abort();
    within("the file is gone", || {
        files(destination.dir.path()).is_empty()
    })
    .await;

    let from = tempfile::tempdir().unwrap();
    let sent = checkpoint(from.path());
    source::push(destination.channel("h1"), &passage(), sent)
        .await
        .unwrap();
    destination.stage().unwrap();
}

#[tokio::test]
async fn a_push_that_hangs_gives_way_to_the_next_one_and_to_a_discard() {
    let destination = Destination::start(ROOM).await;
    let hang = || async {
        let (sender, receiver) = mpsc::channel::<PushChunk>(4);
        let channel = destination.channel("h1");
        let push = tokio::spawn(async move {
            TransferClient::new(channel)
                .push(ReceiverStream::new(receiver))
                .await
        });
        sender.send(passage().open()).await.unwrap();
        sender.send(chunk(begin("hanging", 6))).await.unwrap();
        let hanging = destination.dir.path().join("hanging");
        within("the file began", || hanging.exists()).await;
        (sender, push)
    };
    let (_sender, push) = hang().await;
    let from = tempfile::tempdir().unwrap();
    let sent = checkpoint(from.path());
    source::push(destination.channel("h1"), &passage(), sent)
        .await
        .unwrap();
    assert_eq!(push.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert!(!destination.dir.path().join("hanging").exists());

    let (_sender, push) = hang().await;
    destination.doors.close(&passage().container).await;
    assert!(!destination.dir.path().join("hanging").exists());
    assert_eq!(push.await.unwrap().unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_source_file_that_is_short_or_gone_is_the_sources_fault() {
    let destination = Destination::start(ROOM).await;
    let from = tempfile::tempdir().unwrap();
    let mut sent = checkpoint(from.path());
    sent[3].size += 1;
    let failed = source::push(destination.channel("h1"), &passage(), sent.clone()).await;
    let failed = failed.unwrap_err();
    assert!(matches!(failed, SourceError::Short { .. }), "{failed}");
    assert_eq!(failed.kind(), FailureKind::Internal);
    sent[3].path = from.path().join("gone");
    let failed = source::push(destination.channel("h1"), &passage(), sent)
        .await
        .unwrap_err();
    assert!(matches!(failed, SourceError::Read { .. }), "{failed}");
    within("nothing is left", || {
        files(destination.dir.path()).is_empty()
    })
    .await;

    let target = Target {
        address: "127.0.0.1:1".into(),
        cluster: "blue".into(),
        role: Role::Host,
        name: None,
    };
    let nobody = tls::channel(
        host(&destination.authority, "h1").client_config().unwrap(),
        target,
    );
    let failed = source::push(nobody, &passage(), vec![]).await.unwrap_err();
    assert_eq!(failed.kind(), FailureKind::Peer);
}

async fn within(what: &str, level: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !level() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within 10 s");
}
