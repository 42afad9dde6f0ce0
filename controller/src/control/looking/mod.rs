//! Looking into a container on whichever host has it: a program started in it ([`exec`]), or what
//! is typed into it ([`attach`]).

mod attach;
mod exec;
mod look;
mod typed;

use std::sync::Arc;

pub use attach::attach;
pub use exec::exec;
use godwit_core::{Container, State};
use godwit_proto::{
    agent::host_service_client::HostServiceClient, control::SessionOutput, failure, limits,
};
use godwit_types::{HostName, Refusal, Status as ContainerStatus};
pub use look::look;
use tokio::sync::mpsc;
use tonic::{Status, transport::Channel};

use crate::{leader::Leader, member::Member};

const QUEUE: usize = 16;

type Sender = mpsc::Sender<Result<SessionOutput, Status>>;

/// That it runs, on a host that is up.
fn require_running(leader: &Leader, container: &Container) -> Result<(), Refusal> {
    if !matches!(container.status, ContainerStatus::Running) {
        return Err(Refusal::NotRunning {
            name: container.spec.name.clone(),
            status: container.status.to_string(),
        });
    }
    match leader.sessions.is_up(&container.host) {
        true => Ok(()),
        false => Err(Refusal::HostDown {
            host: container.host.clone(),
        }),
    }
}

fn client(
    member: &Arc<Member>,
    state: &State,
    host: &HostName,
) -> Result<HostServiceClient<Channel>, Status> {
    let Some(known) = state.hosts.get(host) else {
        return Err(failure::refused(Refusal::HostDown { host: host.clone() }));
    };
    let client = HostServiceClient::new(member.host(host, &known.address));
    Ok(client.max_decoding_message_size(limits::MESSAGE))
}
