//! Looking into a container from elsewhere: a program started in it, or its own standard input.
//! What comes over the wire becomes the runtime's frames, and back.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use godwit_proto::{
    control::{LookRequest, Moved, SessionInput, SessionOutput, session_input, session_output},
    document,
    failure::{chain, failed},
    v1::Documents,
};
use godwit_runtime::{
    RuntimeError,
    exec::{Receiver, Sender, Talk},
    frames::{self, Input, Output},
};
use godwit_types::{CommandFailure, ContainerId, ExecRequest, FailureKind, Look, TerminalSize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::debug;

use crate::{failures, host::Host};

/// Messages between a container and its connection.
const AHEAD: usize = 4;

pub type Outputs = Pin<Box<dyn Stream<Item = Result<SessionOutput, Status>> + Send>>;
type Outbox = mpsc::Sender<Result<SessionOutput, Status>>;

/// Answers one question about a container.
pub async fn look(host: &Host, request: LookRequest) -> Result<Documents, Status> {
    let container = id(&request.container)?;
    let look = request.look.unwrap_or_default();
    let look: Look =
        document::read(&look).map_err(|error| Status::invalid_argument(chain(&error)))?;
    let runtime = &host.runtime;
    let answer = match look {
        Look::Processes => runtime
            .list_processes(&container)
            .await
            .map(document::write_all),
        Look::Usage => runtime
            .usage(&container)
            .await
            .map(|usage| document::write_all([usage])),
        Look::Changes => runtime.changes(&container).await.map(document::write_all),
    };
    answer.map_err(|error| not_done(host, &error))
}

/// Starts a program, and answers once it has begun.
pub async fn exec(host: Arc<Host>, mut inputs: Streaming<SessionInput>) -> Result<Outputs, Status> {
    let first = inputs.message().await?.and_then(|first| first.input);
    let Some(session_input::Input::Exec(document)) = first else {
        return Err(Status::invalid_argument("the first message is no `exec`"));
    };
    let request: ExecRequest =
        document::read(&document).map_err(|error| Status::invalid_argument(chain(&error)))?;
    request
        .check()
        .map_err(|error| Status::invalid_argument(chain(&error)))?;
    let container = id(&request.container)?;
    let talk = host.runtime.exec(&container, &request).await;
    let Talk { input, mut output } = talk.map_err(|error| not_done(&host, &error))?;
    match output.next().await {
        Ok(Some(Output::Started)) => {}
        Ok(Some(Output::Failed(failure))) => {
            return Err(failed(failures::on_host(&host.name, failure)));
        }
        other => {
            debug!(?other, "keeper of an exec broke off");
            let text = "the program's keeper broke off before it began";
            let failure = CommandFailure::new(FailureKind::Internal, text);
            return Err(failed(failures::on_host(&host.name, failure)));
        }
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let begun = session_output::Output::Started(true);
    // Nobody but us has seen the channel.
    let _ = sender.send(Ok(message(begun))).await;
    if !request.detach {
        tokio::spawn(pump(inputs, input, output, sender));
    }
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// The container's standard input, its terminal and its signals.
pub async fn attach(
    host: Arc<Host>,
    mut inputs: Streaming<SessionInput>,
) -> Result<Outputs, Status> {
    let first = inputs.message().await?.and_then(|first| first.input);
    let Some(session_input::Input::Attach(request)) = first else {
        return Err(Status::invalid_argument("the first message is no `attach`"));
    };
    let container = id(&request.container)?;
    let talk = host.runtime.stdin(&container).await;
    let Talk { mut input, output } = talk.map_err(|error| not_done(&host, &error))?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let _ = sender
        .send(Ok(message(session_output::Output::Started(true))))
        .await;
    tokio::spawn(async move {
        let typed = async {
            while let Ok(Some(SessionInput { input: Some(said) })) = inputs.message().await {
                // These two must not wait behind what the container does not read.
                let done = match frame(said) {
                    Some(Input::Size(size)) => host.runtime.resize(&container, size).await,
                    Some(Input::Signal(signal)) => {
                        host.runtime.send_signal(&container, signal).await
                    }
                    Some(Input::Detach) => return,
                    Some(other) => match send(&mut input, other).await {
                        Ok(()) => Ok(()),
                        Err(_) => return,
                    },
                    None => Ok(()),
                };
                if let Err(error) = done {
                    debug!(container = container.short(), %error, "not passed on");
                }
            }
        };
        tokio::select! {
            () = typed => {}
            () = pass_on(output, &sender) => {}
            () = sender.closed() => {}
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn id(text: &str) -> Result<ContainerId, Status> {
    text.parse()
        .map_err(|error: godwit_types::IdError| Status::invalid_argument(chain(&error)))
}

fn not_done(host: &Host, error: &RuntimeError) -> Status {
    failed(failures::on_host(&host.name, failures::of_runtime(error)))
}

/// Both ways, until the program has ended or nobody looks any more.
async fn pump(
    mut inputs: Streaming<SessionInput>,
    mut input: Sender,
    output: Receiver,
    sender: Outbox,
) {
    let typed = async {
        loop {
            match inputs.message().await {
                Ok(Some(SessionInput { input: Some(said) })) => {
                    let Some(frame) = frame(said) else { continue };
                    let last = frame == Input::Detach;
                    if send(&mut input, frame).await.is_err() || last {
                        return;
                    }
                }
                Ok(Some(_)) => {}
                // Nothing more is typed; the output goes on.
                Ok(None) => std::future::pending().await,
                Err(_) => return,
            }
        }
    };
    // Whoever is left alone by this is told by the end of the socket.
    tokio::select! {
        () = typed => {}
        () = pass_on(output, &sender) => {}
        () = sender.closed() => {}
    }
}

async fn pass_on(mut output: Receiver, sender: &Outbox) {
    while let Ok(Some(frame)) = output.next().await {
        let said = match frame {
            Output::Started | Output::Failed(_) => continue,
            Output::Stdout(data) => session_output::Output::Stdout(data.into()),
            Output::Stderr(data) => session_output::Output::Stderr(data.into()),
            Output::Exit(code) => session_output::Output::Exit(code),
            Output::Moved(migration) => session_output::Output::Moved(Moved {
                migration: migration.to_string(),
                to: String::new(),
            }),
            Output::Taken(count) => session_output::Output::Taken(count),
        };
        if sender.send(Ok(message(said))).await.is_err() {
            return;
        }
    }
}

/// In frames that are not too long.
async fn send(input: &mut Sender, frame: Input) -> std::io::Result<()> {
    match frame {
        Input::Data(data) => {
            for piece in data.chunks(frames::PAYLOAD) {
                input.send(&Input::Data(piece.to_vec())).await?;
            }
            Ok(())
        }
        other => input.send(&other).await,
    }
}

fn message(output: session_output::Output) -> SessionOutput {
    SessionOutput {
        output: Some(output),
    }
}

/// None: nothing that can come now.
fn frame(input: session_input::Input) -> Option<Input> {
    Some(match input {
        session_input::Input::Exec(_) | session_input::Input::Attach(_) => return None,
        session_input::Input::Data(data) => Input::Data(data.into()),
        session_input::Input::End(_) => Input::End,
        session_input::Input::Size(size) => {
            // A kernel's own are no larger.
            let bounded = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
            Input::Size(TerminalSize {
                rows: bounded(size.rows),
                columns: bounded(size.columns),
            })
        }
        session_input::Input::Signal(signal) => Input::Signal(signal),
        session_input::Input::Detach(_) => Input::Detach,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_a_terminals_is_the_largest_and_a_second_start_is_nothing() {
        let size = godwit_proto::control::TerminalSize {
            rows: 1 << 20,
            columns: 80,
        };
        let most = TerminalSize {
            rows: u16::MAX,
            columns: 80,
        };
        assert_eq!(
            frame(session_input::Input::Size(size)),
            Some(Input::Size(most))
        );
        assert_eq!(
            frame(session_input::Input::Attach(Default::default())),
            None
        );
    }
}
