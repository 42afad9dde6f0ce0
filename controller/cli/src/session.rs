//! A conversation with a container: what goes in on one side, what comes out on the other. It
//! knows no terminal.

use std::sync::Mutex;

use bytes::Bytes;
use godwit_proto::{
    control::{
        ContainerRequest, SessionInput, SessionOutput, TerminalSize, session_input::Input,
        session_output,
    },
    document,
};
use godwit_types::ExecRequest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Messages that wait for the connection.
const AHEAD: usize = 16;

/// See the module. Dropped, the other side hears that nobody looks any more.
pub struct Session {
    pub input: Sender,
    pub output: Streaming<SessionOutput>,
}

/// What goes in. An error: the other side is gone, which the output says better.
#[derive(Debug, Clone)]
pub struct Sender(mpsc::Sender<SessionInput>);

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Stdout(Bytes),
    Stderr(Bytes),
    Exit(i32),
    /// It was ended, since its container moved.
    Moved {
        migration: String,
        to: String,
    },
}

impl Session {
    /// Starts a program in a container that runs; answers once it has begun.
    pub async fn exec(cluster: &mut Cluster, request: &ExecRequest) -> Result<Self, ClientError> {
        let first = Input::Exec(document::write(request));
        let slot = Mutex::new(None);
        let call = async |mut control: Control| control.exec(begin(&slot, &first)).await;
        let output = cluster.order(call).await?;
        Ok(Self::new(&slot, output))
    }

    /// What is typed into a container, wherever it moves. Its output is its log.
    pub async fn attach(cluster: &mut Cluster, container: &str) -> Result<Self, ClientError> {
        let first = Input::Attach(ContainerRequest {
            container: container.to_owned(),
        });
        let slot = Mutex::new(None);
        let call = async |mut control: Control| control.attach(begin(&slot, &first)).await;
        let output = cluster.ask(call).await?;
        Ok(Self::new(&slot, output))
    }

    fn new(slot: &Slot, output: Streaming<SessionOutput>) -> Self {
        let sender = slot.lock().ok().and_then(|mut slot| slot.take());
        // A call that was answered was made, and left its sender here.
        let sender = sender.unwrap_or_else(|| mpsc::channel(1).0);
        Self {
            input: Sender(sender),
            output,
        }
    }

    /// What is said next; None: nothing more.
    pub async fn next(&mut self, cluster: &mut Cluster) -> Result<Option<Said>, ClientError> {
        loop {
            let message = self.output.message().await;
            let Some(message) = message.map_err(|status| cluster.stream_failed(status))? else {
                return Ok(None);
            };
            return Ok(Some(match message.output {
                Some(session_output::Output::Stdout(data)) => Said::Stdout(data),
                Some(session_output::Output::Stderr(data)) => Said::Stderr(data),
                Some(session_output::Output::Exit(code)) => Said::Exit(code),
                Some(session_output::Output::Moved(moved)) => Said::Moved {
                    migration: moved.migration,
                    to: moved.to,
                },
                _ => continue,
            }));
        }
    }
}

type Slot = Mutex<Option<mpsc::Sender<SessionInput>>>;

/// The stream of one attempt, which leaves its sender in `slot`.
fn begin(slot: &Slot, first: &Input) -> ReceiverStream<SessionInput> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    // Empty, so there is room.
    let _ = sender.try_send(SessionInput {
        input: Some(first.clone()),
    });
    if let Ok(mut slot) = slot.lock() {
        *slot = Some(sender);
    }
    ReceiverStream::new(receiver)
}

impl Sender {
    pub async fn data(&self, data: Vec<u8>) {
        self.send(Input::Data(data.into())).await;
    }

    /// Nothing more will come.
    pub async fn end(&self) {
        self.send(Input::End(true)).await;
    }

    pub async fn resize(&self, size: godwit_types::TerminalSize) {
        let size = TerminalSize {
            rows: size.rows.into(),
            columns: size.columns.into(),
        };
        self.send(Input::Size(size)).await;
    }

    pub async fn signal(&self, signal: i32) {
        self.send(Input::Signal(signal)).await;
    }

    /// Leaves it to itself.
    pub async fn detach(&self) {
        self.send(Input::Detach(true)).await;
    }

    async fn send(&self, input: Input) {
        let _ = self.0.send(SessionInput { input: Some(input) }).await;
    }
}
