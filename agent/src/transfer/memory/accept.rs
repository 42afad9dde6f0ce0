//! Connections that are lanes: told from those of gRPC by their protocol, let in by the doors, and
//! answered with what went wrong.

use std::{io, sync::Arc, time::Duration};

use godwit_proto::{
    authz::{self, Service},
    failure::chain,
    limits,
    tls::Accepted,
    transfer::MemoryOpen,
};
use godwit_runtime::memory::StoreError;
use godwit_types::{CommandFailure, FailureKind, HostName};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tracing::{debug, warn};

use super::{
    super::{
        doors::{DoorError, Doors},
        protocol::{OpenError, Passage},
    },
    MemoryError,
    receive::{self, ReceiveError},
    wire::{self, Kind, PROTOCOL, Reader, Record, WireError},
};
use crate::failures;

/// For a source to hear why its lane was ended: until then it goes on sending.
const HEARING: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("only a host may open a lane")]
    Role,
    #[error("a lane does not begin with an open")]
    NoOpen,
    #[error("a lane does not begin in time")]
    Late,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Received(#[from] ReceiveError),
}

impl From<WireError> for Turned {
    fn from(error: WireError) -> Self {
        Self::Received(error.into())
    }
}

/// Serves the lanes among these connections, and answers the others.
pub fn split(
    mut incoming: ReceiverStream<io::Result<Accepted>>,
    doors: Arc<Doors>,
    host: HostName,
) -> ReceiverStream<io::Result<Accepted>> {
    let (others, rest) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = incoming.next() => next,
                () = others.closed() => return,
            };
            match next {
                Some(Ok(lane)) if lane.protocol() == Some(PROTOCOL) => {
                    tokio::spawn(serve(lane, doors.clone(), host.clone()));
                }
                Some(other) => drop(others.send(other).await),
                None => return,
            }
        }
    });
    ReceiverStream::new(rest)
}

async fn serve(mut stream: Accepted, doors: Arc<Doors>, host: HostName) {
    let mut reader = Reader::default();
    let Err(error) = lane(&mut stream, &mut reader, &doors).await else {
        let _ = stream.shutdown().await;
        return;
    };
    let address = stream.peer().address;
    let caller = stream.peer().identity.name.clone();
    warn!(caller, %address, error = chain(&error), "lane ended");
    let failure = CommandFailure::new(kind(&error), chain(&error));
    let said = Record::failed(&failures::on_host(&host, failure));
    // A connection that is closed before all was read is reset, and what was said is lost.
    let told = timeout(HEARING, async {
        wire::write(&mut stream, &said).await?;
        stream.shutdown().await?;
        let mut unread = vec![0; 64 << 10];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    });
    if !matches!(told.await, Ok(Ok(()))) {
        debug!(caller, %address, "may not know why its lane ended");
    }
}

async fn lane(stream: &mut Accepted, reader: &mut Reader, doors: &Doors) -> Result<(), Turned> {
    let caller = stream.peer().identity.clone();
    if !authz::roles(Service::Transfer).contains(&caller.role) {
        return Err(Turned::Role);
    }
    let first = timeout(limits::HANDSHAKE, reader.read(stream))
        .await
        .map_err(|_| Turned::Late)??;
    let first = first.filter(|first| first.kind == Kind::Open);
    let body = first.ok_or(Turned::NoOpen)?.body;
    let opening = MemoryOpen::decode(body).map_err(WireError::from)?;
    let passage = Passage::of(&opening.open.unwrap_or_default())?;
    let arriving = doors.memory(&passage, &caller.name)?;
    let number = opening.lane;
    arriving
        .join(number, opening.lanes)
        .map_err(ReceiveError::from)?;
    receive::done(stream).await?;
    let bytes = receive::receive(stream, reader, &arriving, number).await?;
    debug!(
        container = passage.container.short(),
        number, bytes, "lane came to its end"
    );
    Ok(())
}

fn kind(error: &Turned) -> FailureKind {
    use ReceiveError::*;
    match error {
        Turned::Role | Turned::NoOpen | Turned::Late | Turned::Open(_) => FailureKind::Peer,
        Turned::Door(_) => FailureKind::WrongState,
        Turned::Received(Cut | Order | Count { .. } | Wire(_)) => FailureKind::Peer,
        Turned::Received(Memory(memory)) => match memory {
            MemoryError::Store(StoreError::TooMuch { .. }) => FailureKind::Unfit,
            MemoryError::Store(StoreError::Frame { .. } | StoreError::Tasks)
            | MemoryError::Lane { .. } => FailureKind::Peer,
            MemoryError::Differs { .. } | MemoryError::Store(_) => FailureKind::Internal,
            MemoryError::Shut | MemoryError::NotWhole { .. } => FailureKind::WrongState,
        },
    }
}
