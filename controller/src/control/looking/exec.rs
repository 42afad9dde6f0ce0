//! One program in one container. It ends with its host's instance: a container that moves leaves
//! it behind, and whoever looks is told.

use std::sync::Arc;

use futures::Stream;
use godwit_core::find_container;
use godwit_proto::{
    control::{Moved, SessionInput, SessionOutput, session_input, session_output},
    document, failure,
};
use godwit_types::{ExecRequest, MigrationId};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use super::{QUEUE, Sender, client, require_running};
use crate::{
    control::{invalid, lost, read},
    leader::Leader,
    member::Member,
};

pub async fn exec(
    member: Arc<Member>,
    leader: Arc<Leader>,
    mut inputs: Streaming<SessionInput>,
) -> Result<impl Stream<Item = Result<SessionOutput, Status>> + Send + use<>, Status> {
    let first = inputs.message().await?.and_then(|first| first.input);
    let Some(session_input::Input::Exec(first)) = first else {
        return Err(invalid("exec", "the first message is another"));
    };
    let mut request: ExecRequest =
        document::read(&first).map_err(|error| invalid("exec", failure::chain(&error)))?;
    request.check().map_err(|error| invalid("exec", error))?;
    let state = read(&leader).await?;
    let container = find_container(&state, &request.container).map_err(failure::refused)?;
    require_running(&leader, container).map_err(failure::refused)?;
    request.container = container.id.to_string();
    let mut client = client(&member, &state, &container.host)?;
    let begin = SessionInput {
        input: Some(session_input::Input::Exec(document::write(&request))),
    };
    // One that broke ends: that nobody looks any more is known by the other direction.
    let rest = inputs.map_while(Result::ok);
    let answer = client.exec(tokio_stream::once(begin).chain(rest)).await;
    let mut outputs = answer?.into_inner();
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let pass_on = async {
            while let Some(output) = outputs.message().await? {
                if sender.send(Ok(complete(&leader, output))).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let result = tokio::select! {
            result = leader.scope.run(pass_on) => result.unwrap_or_else(|| Err(lost())),
            () = sender.closed() => Ok(()),
        };
        say(&sender, result).await;
    });
    Ok(ReceiverStream::new(receiver))
}

async fn say(sender: &Sender, result: Result<(), Status>) {
    if let Err(status) = result {
        let _ = sender.send(Err(status)).await;
    }
}

/// The host knows by which migration it ended, and not where that goes.
fn complete(leader: &Leader, mut output: SessionOutput) -> SessionOutput {
    if let Some(session_output::Output::Moved(Moved { migration, to })) = &mut output.output
        && let Ok(id) = migration.parse::<MigrationId>()
        && let Some(known) = leader.state().migrations.get(&id)
    {
        *to = known.to.to_string();
    }
    output
}
