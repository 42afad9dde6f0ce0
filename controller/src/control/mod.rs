//! What people and programs ask of the cluster: the gRPC edge. Each request is answered by the
//! leader; a follower passes it on and hands back what comes.

mod containers;
mod drain;
mod estimate;
mod images;
mod lists;
mod logs;
mod migrations;
mod ports;
mod preflight;
mod run;
mod storage;
mod volumes;

use std::{error::Error as _, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use godwit_proto::{
    authz,
    control::{
        ContainerRequest, CreateNetworkRequest, CreateVolumeRequest, DrainRequest, HostRequest,
        LoadImageChunk, LoadImageReply, LogChunk, LogsRequest, MigrateRequest, MigrationRequest,
        NetworkRequest, PruneVolumesRequest, RemoveRequest, RunRequest, SetLimitsRequest,
        StopRequest, VolumeRequest,
        control_server::{Control, ControlServer},
    },
    document, failure, limits,
    v1::{Document, Documents, Empty},
};
use godwit_types::{FailureKind, Refusal};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    leader::{JobError, Leader},
    member::{Member, PATIENCE, Place},
    raft::ProposeError,
};

/// Set on what a follower passes on.
const FORWARDED: &str = "godwit-forwarded";
const RETRY: Duration = Duration::from_millis(100);

pub fn service(member: Arc<Member>) -> ControlServer<impl Control> {
    ControlServer::new(Service { member }).max_decoding_message_size(limits::MESSAGE)
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Service {
    member: Arc<Member>,
}

/// What a proposal's failure means to a caller.
pub fn status_of(error: ProposeError) -> Status {
    match error {
        ProposeError::Refused(refusal) => failure::refused(refusal),
        other => Status::unavailable(other.to_string()),
    }
}

fn job_status(error: JobError) -> Status {
    match error {
        // The container was there a moment ago: not "no such container" to the caller.
        JobError::Failed(mut found) => {
            if found.kind == FailureKind::NotFound {
                found.kind = FailureKind::WrongState;
            }
            failure::failed(found)
        }
        JobError::HostDown(host) => failure::refused(Refusal::HostDown { host }),
        JobError::Lost => lost(),
    }
}

fn lost() -> Status {
    Status::unavailable("the leader changed before the answer; look whether it was done")
}

fn forward<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let yes = tonic::metadata::MetadataValue::from_static("1");
    request.metadata_mut().insert(FORWARDED, yes);
    request
}

fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// Whether a read should look for another leader.
fn try_again(status: &Status, deadline: Instant) -> bool {
    status.code() == Code::Unavailable
        && failure::problem(status).is_none()
        && Instant::now() < deadline
}

/// A connection to the leader that broke is for the caller as if that had lost its lead: the next
/// leader can be asked. A status that came over it is passed on.
fn broken(status: Status) -> Status {
    match status.source() {
        Some(cause) => Status::unavailable(format!(
            "the leader was lost before it answered; look whether it was done: {}",
            failure::chain(cause)
        )),
        None => status,
    }
}

/// Answers here or by the leader. `again`: it changes nothing and may be asked twice.
macro_rules! unary {
    ($self:ident, $request:ident, $method:ident, again: $again:expr,
     |$leader:ident, $message:ident| $here:expr) => {{
        authz::require(&$request, authz::Service::Control)?;
        let forwarded = is_forwarded(&$request);
        let message = $request.into_inner();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let result = match $self.member.place(forwarded).await? {
                Place::Here(leader) => {
                    let ($leader, $message) = (&leader, message.clone());
                    leader.scope.run($here).await.unwrap_or_else(|| Err(lost()))
                }
                Place::There(mut client) => {
                    let answer = client.$method(forward(message.clone())).await;
                    answer.map(Response::into_inner).map_err(broken)
                }
            };
            match result {
                Err(status) if $again && !forwarded && try_again(&status, deadline) => {
                    tokio::time::sleep(RETRY).await;
                }
                other => return other.map(Response::new),
            }
        }
    }};
}

#[tonic::async_trait]
impl Control for Service {
    async fn run(&self, request: Request<RunRequest>) -> Result<Response<Document>, Status> {
        unary!(self, request, run, again: false, |leader, message| run::run(leader, message))
    }

    async fn list_containers(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_containers, again: true, |leader, _message| {
            lists::containers(leader)
        })
    }

    async fn inspect_container(
        &self,
        request: Request<ContainerRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, inspect_container, again: true, |leader, message| {
            containers::inspect(leader, message)
        })
    }

    async fn stop_container(
        &self,
        request: Request<StopRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, stop_container, again: false, |leader, message| {
            containers::stop(leader, message)
        })
    }

    async fn remove_container(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<Empty>, Status> {
        unary!(self, request, remove_container, again: false, |leader, message| {
            containers::remove(leader, message)
        })
    }

    type LogsStream = Answers<LogChunk>;

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        authz::require(&request, authz::Service::Control)?;
        let forwarded = is_forwarded(&request);
        let message = request.into_inner();
        match self.member.place(forwarded).await? {
            Place::Here(leader) => {
                let stream = logs::stream(self.member.clone(), leader, message).await?;
                Ok(Response::new(Box::pin(stream)))
            }
            Place::There(mut client) => {
                let stream = client.logs(forward(message)).await?.into_inner();
                Ok(Response::new(Box::pin(stream)))
            }
        }
    }

    async fn load_image(
        &self,
        request: Request<Streaming<LoadImageChunk>>,
    ) -> Result<Response<LoadImageReply>, Status> {
        authz::require(&request, authz::Service::Control)?;
        let forwarded = is_forwarded(&request);
        let chunks = request.into_inner();
        match self.member.place(forwarded).await? {
            Place::Here(leader) => {
                let work = images::load(&self.member, &leader, chunks);
                let reply = leader.scope.run(work).await.unwrap_or_else(|| Err(lost()));
                reply.map(Response::new)
            }
            Place::There(mut client) => {
                // A stream that broke ends early; the archive is then refused as cut off.
                let chunks = chunks.map_while(Result::ok);
                let reply = client.load_image(forward(chunks)).await?;
                Ok(reply)
            }
        }
    }

    async fn list_images(&self, request: Request<Empty>) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_images, again: true, |leader, _message| {
            images::list(leader)
        })
    }

    async fn create_network(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, create_network, again: false, |leader, message| {
            lists::create_network(leader, message)
        })
    }

    async fn list_networks(&self, request: Request<Empty>) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_networks, again: true, |leader, _message| {
            lists::networks(leader)
        })
    }

    async fn list_hosts(&self, request: Request<Empty>) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_hosts, again: true, |leader, _message| lists::hosts(leader))
    }

    async fn list_members(&self, request: Request<Empty>) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_members, again: true, |_leader, _message| {
            lists::members(&self.member)
        })
    }

    type MigrateStream = Answers<Document>;

    async fn migrate(
        &self,
        request: Request<MigrateRequest>,
    ) -> Result<Response<Self::MigrateStream>, Status> {
        authz::require(&request, authz::Service::Control)?;
        let forwarded = is_forwarded(&request);
        let message = request.into_inner();
        match self.member.place(forwarded).await? {
            Place::Here(leader) => {
                if message.dry_run {
                    let work = estimate::estimate(&leader, message);
                    let estimate = leader.scope.run(work).await;
                    let estimate = estimate.unwrap_or_else(|| Err(lost()))?;
                    let only = tokio_stream::once(Ok(document::write(&estimate)));
                    return Ok(Response::new(Box::pin(only)));
                }
                let work = migrations::start(&leader, message);
                let id = leader
                    .scope
                    .run(work)
                    .await
                    .unwrap_or_else(|| Err(lost()))?;
                Ok(Response::new(Box::pin(migrations::watch(leader, id))))
            }
            Place::There(mut client) => {
                let stream = client.migrate(forward(message)).await?.into_inner();
                Ok(Response::new(Box::pin(stream)))
            }
        }
    }

    async fn list_migrations(
        &self,
        request: Request<Empty>,
    ) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_migrations, again: true, |leader, _message| {
            migrations::list(leader)
        })
    }

    async fn inspect_migration(
        &self,
        request: Request<MigrationRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, inspect_migration, again: true, |leader, message| {
            migrations::inspect(leader, message)
        })
    }

    async fn cancel_migration(
        &self,
        request: Request<MigrationRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, cancel_migration, again: true, |leader, message| {
            migrations::cancel(leader, message)
        })
    }

    async fn recover_migration(
        &self,
        request: Request<MigrationRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, recover_migration, again: true, |leader, message| {
            migrations::recover(leader, message)
        })
    }

    async fn drain_host(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, drain_host, again: true, |leader, message| {
            drain::begin(leader, message)
        })
    }

    async fn inspect_drain(
        &self,
        request: Request<HostRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, inspect_drain, again: true, |leader, message| {
            drain::inspect(leader, message)
        })
    }

    async fn activate_host(
        &self,
        request: Request<HostRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, activate_host, again: true, |leader, message| {
            drain::end(leader, message)
        })
    }

    async fn set_limits(
        &self,
        request: Request<SetLimitsRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, set_limits, again: true, |leader, message| {
            drain::set_limits(leader, message)
        })
    }

    async fn inspect_network(
        &self,
        request: Request<NetworkRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, inspect_network, again: true, |leader, message| {
            lists::inspect_network(leader, message)
        })
    }

    async fn remove_network(
        &self,
        request: Request<NetworkRequest>,
    ) -> Result<Response<Empty>, Status> {
        unary!(self, request, remove_network, again: false, |leader, message| {
            lists::remove_network(leader, message)
        })
    }

    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, create_volume, again: false, |leader, message| {
            volumes::create(leader, message)
        })
    }

    async fn list_volumes(&self, request: Request<Empty>) -> Result<Response<Documents>, Status> {
        unary!(self, request, list_volumes, again: true, |leader, _message| {
            volumes::list(leader)
        })
    }

    async fn inspect_volume(
        &self,
        request: Request<VolumeRequest>,
    ) -> Result<Response<Document>, Status> {
        unary!(self, request, inspect_volume, again: true, |leader, message| {
            volumes::inspect(leader, message)
        })
    }

    async fn remove_volume(
        &self,
        request: Request<VolumeRequest>,
    ) -> Result<Response<Empty>, Status> {
        unary!(self, request, remove_volume, again: false, |leader, message| {
            volumes::remove(leader, message)
        })
    }

    async fn prune_volumes(
        &self,
        request: Request<PruneVolumesRequest>,
    ) -> Result<Response<Documents>, Status> {
        unary!(self, request, prune_volumes, again: false, |leader, message| {
            volumes::prune(leader, message)
        })
    }
}

async fn read(leader: &Leader) -> Result<Arc<godwit_core::State>, Status> {
    leader.read().await.map_err(status_of)
}

fn invalid(what: &str, problem: impl ToString) -> Status {
    failure::refused(Refusal::Invalid {
        what: what.to_owned(),
        problem: problem.to_string(),
    })
}
