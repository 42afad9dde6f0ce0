//! Builds, imports and commits: each goes to the hosts that do it, and what they say comes back.

use std::sync::Arc;

use futures::future::join_all;
use godwit_core::find_container;
use godwit_proto::{
    agent::{HostCommitRequest, host_service_client::HostServiceClient},
    control::{AuthorChunk, CommitReply, LoadImageReply, load_image_reply::PerHost},
    document, failure, limits,
    v1::{Document, Documents},
};
use godwit_types::{CommitRequest, HostName, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{images, read};
use crate::{leader::Leader, member::Member};

/// Chunks on their way to one host.
const QUEUE: usize = 8;

/// Passes a build on to its host. It ends there when the answer is dropped here.
pub async fn build(
    member: &Arc<Member>,
    leader: &Arc<Leader>,
    mut chunks: Streaming<AuthorChunk>,
) -> Result<Streaming<Document>, Status> {
    let first = first(&mut chunks).await?;
    let (host, address) = builder(leader, &first.hosts).await?;
    let (queue, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut next = Some(first);
        while let Some(chunk) = next {
            if queue.send(chunk).await.is_err() {
                return;
            }
            // A stream that broke ends without its end being said.
            next = chunks.message().await.ok().flatten();
        }
    });
    let mut client = client(member, &host, &address);
    let said = client.build(ReceiverStream::new(receiver)).await?;
    Ok(said.into_inner())
}

/// The host that is asked for, or the first that is up and takes containers: the same one as
/// long as it can be, since it knows the steps of the build before.
async fn builder(leader: &Leader, wanted: &[String]) -> Result<(HostName, String), Status> {
    let state = read(leader).await?;
    if !wanted.is_empty() {
        let mut targets = images::targets(leader, wanted).map_err(failure::refused)?;
        return Ok(targets.swap_remove(0));
    }
    let mut up = leader.sessions.live();
    up.sort();
    up.into_iter()
        .filter(|host| !state.is_draining(host))
        .find_map(|host| Some((host.clone(), state.hosts.get(&host)?.address.clone())))
        .ok_or_else(|| {
            failure::refused(Refusal::UnknownHost {
                host: "any that is up".to_owned(),
            })
        })
}

/// Sends a root file system to many hosts at once.
pub async fn import(
    member: &Arc<Member>,
    leader: &Arc<Leader>,
    mut chunks: Streaming<AuthorChunk>,
) -> Result<LoadImageReply, Status> {
    let first = first(&mut chunks).await?;
    let targets = images::targets(leader, &first.hosts).map_err(failure::refused)?;
    let mut queues = Vec::new();
    let mut imports = Vec::new();
    for (host, address) in targets {
        let (queue, receiver) = mpsc::channel(QUEUE);
        queues.push(queue);
        let mut client = client(member, &host, &address);
        imports.push(async move {
            let answer = client.import_image(ReceiverStream::new(receiver)).await;
            let (error, images) = match answer {
                Ok(image) => (
                    String::new(),
                    Some(Documents {
                        items: vec![image.into_inner()],
                    }),
                ),
                Err(status) => (status.message().to_owned(), None),
            };
            PerHost {
                host: host.to_string(),
                error,
                images,
            }
        });
    }
    let feed = async move {
        let mut next = Some(first);
        while let Some(chunk) = next {
            // A host that failed takes no more: its own answer says why.
            let sends = queues.iter().map(|queue| queue.send(chunk.clone()));
            if join_all(sends).await.iter().all(Result::is_err) {
                break;
            }
            next = chunks.message().await?;
        }
        Ok::<_, Status>(())
    };
    let (fed, hosts) = tokio::join!(feed, join_all(imports));
    fed?;
    Ok(LoadImageReply { hosts })
}

pub async fn commit(
    member: &Arc<Member>,
    leader: &Arc<Leader>,
    request: Document,
) -> Result<CommitReply, Status> {
    let asked: CommitRequest = document::read(&request)?;
    let state = read(leader).await?;
    let container = find_container(&state, &asked.container).map_err(failure::refused)?;
    let host = container.host.clone();
    let known = state.hosts.get(&host);
    let Some(known) = known.filter(|_| leader.sessions.is_up(&host)) else {
        return Err(failure::refused(Refusal::HostDown { host }));
    };
    let request = HostCommitRequest {
        container: container.id.to_string(),
        request: Some(request),
    };
    let mut client = client(member, &host, &known.address);
    let image = client.commit_container(request).await?.into_inner();
    Ok(CommitReply {
        host: host.to_string(),
        image: Some(image),
    })
}

async fn first(chunks: &mut Streaming<AuthorChunk>) -> Result<AuthorChunk, Status> {
    let first = chunks.message().await?;
    first.ok_or_else(|| Status::invalid_argument("the request is empty"))
}

fn client(member: &Member, host: &HostName, address: &str) -> HostServiceClient<Channel> {
    HostServiceClient::new(member.host(host, address)).max_decoding_message_size(limits::MESSAGE)
}
