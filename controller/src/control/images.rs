//! Images on all hosts: list them, and load one archive into many stores at once.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use godwit_proto::{
    agent::{ImageChunk, host_service_client::HostServiceClient},
    control::{LoadImageChunk, LoadImageReply, load_image_reply::PerHost},
    document, failure,
    v1::Documents,
};
use godwit_types::{HostName, ImageView, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{read, run::find_host};
use crate::{leader::Leader, member::Member};

/// Chunks on their way to one host.
const QUEUE: usize = 8;

pub async fn list(leader: &Arc<Leader>) -> Result<Documents, Status> {
    read(leader).await?;
    let mut views = BTreeMap::new();
    for (host, (_, report)) in leader.sessions.reports() {
        for summary in report.images {
            for name in &summary.names {
                let key = (name.clone(), summary.id.clone());
                let view = views.entry(key).or_insert_with(|| ImageView {
                    name: name.clone(),
                    id: summary.id.clone(),
                    size: summary.size,
                    created: summary.created,
                    hosts: Vec::new(),
                });
                view.hosts.push(host.clone());
            }
        }
    }
    Ok(document::write_all(views.into_values()))
}

pub async fn load(
    member: &Arc<Member>,
    leader: &Arc<Leader>,
    mut chunks: Streaming<LoadImageChunk>,
) -> Result<LoadImageReply, Status> {
    let first = chunks
        .message()
        .await?
        .ok_or_else(|| Status::invalid_argument("the archive is empty"))?;
    let targets = targets(leader, &first.hosts).map_err(failure::refused)?;
    let mut queues = Vec::new();
    let mut loads = Vec::new();
    for (host, address) in targets {
        let (queue, receiver) = mpsc::channel(QUEUE);
        queues.push(queue);
        let mut client = HostServiceClient::new(member.host(&host, &address));
        loads.push(async move {
            let answer = client.load_image(ReceiverStream::new(receiver)).await;
            let (error, images) = match answer {
                Ok(images) => (String::new(), Some(images.into_inner())),
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
            let data = ImageChunk { data: chunk.data };
            // A host that failed takes no more: its own answer says why.
            let sends = queues.iter().map(|queue| queue.send(data.clone()));
            if join_all(sends).await.iter().all(Result::is_err) {
                break;
            }
            next = chunks.message().await?;
        }
        Ok::<_, Status>(())
    };
    let (fed, hosts) = tokio::join!(feed, join_all(loads));
    fed?;
    Ok(LoadImageReply { hosts })
}

pub(super) fn targets(
    leader: &Leader,
    wanted: &[String],
) -> Result<Vec<(HostName, String)>, Refusal> {
    let state = leader.state();
    let names = if wanted.is_empty() {
        leader.sessions.live()
    } else {
        let found: Result<Vec<_>, _> = wanted.iter().map(|text| find_host(&state, text)).collect();
        found?
    };
    if names.is_empty() {
        return Err(Refusal::UnknownHost {
            host: "any that is up".to_owned(),
        });
    }
    let mut targets = Vec::new();
    for host in names {
        match state.hosts.get(&host) {
            Some(known) if leader.sessions.is_up(&host) => {
                targets.push((host, known.address.clone()));
            }
            _ => return Err(Refusal::HostDown { host }),
        }
    }
    Ok(targets)
}
