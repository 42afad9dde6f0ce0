//! What people order of images, on one host or on several at once.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, future::join_all};
use godwit_core::{Candidate, choose};
use godwit_proto::{
    agent::host_service_client::HostServiceClient,
    control::{ImageWorkRequest, SaveImagesRequest, SavedChunk},
    document, failure, limits,
    v1::Document,
};
use godwit_types::{
    AgentReport, CommandFailure, Digest, FailureKind, HostImageNews, HostName, ImageName,
    ImageNews, ImageOrder, ImageSummary, Refusal,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

use super::{invalid, lost, read, run::find_host};
use crate::{
    leader::{Leader, images},
    member::Member,
};

const QUEUE: usize = 64;

type Sender = mpsc::Sender<Result<Document, Status>>;

/// Whether a text means this image: a name of it, its id, or the beginning of that.
pub(super) fn means(image: &ImageSummary, text: &str) -> bool {
    let name = text.parse::<ImageName>();
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    name.is_ok_and(|name| image.names.contains(&name))
        || (hex.len() >= 2 && image.id.hex().starts_with(hex))
}

/// Hosts in the order in which they are asked, with the addresses of their agents.
type Targets = Vec<(HostName, String)>;

fn up(leader: &Leader, fits: impl Fn(&HostName, &AgentReport) -> bool) -> Targets {
    let peers = images::peers(leader, fits).into_iter();
    peers.map(|peer| (peer.host, peer.address)).collect()
}

/// The hosts that were named. An error: one is not known, or not up.
fn named(leader: &Leader, hosts: &[String]) -> Result<Targets, Refusal> {
    let state = leader.state();
    let mut targets = Vec::new();
    for text in hosts {
        let host = find_host(&state, text)?;
        match state.hosts.get(&host) {
            Some(known) if leader.sessions.is_up(&host) => {
                targets.push((host, known.address.clone()));
            }
            _ => return Err(Refusal::HostDown { host }),
        }
    }
    Ok(targets)
}

/// The host that takes a new image: as for a container.
pub(super) fn roomy(leader: &Leader) -> Option<HostName> {
    let reports = leader.sessions.reports();
    let candidates = reports.iter().map(|(host, (up, _))| Candidate {
        host: host.clone(),
        up: *up,
        has_image: true,
    });
    choose(&leader.state(), &candidates.collect::<Vec<_>>())
}

fn targets(
    leader: &Leader,
    request: &ImageWorkRequest,
    order: &ImageOrder,
) -> Result<Targets, Refusal> {
    if !request.hosts.is_empty() {
        return named(leader, &request.hosts);
    }
    let holders = |image: &str| {
        let found = up(leader, |_, report| {
            report.images.iter().any(|known| means(known, image))
        });
        if found.is_empty() {
            let image = image.to_owned();
            return Err(Refusal::NoHostForImage { image });
        }
        Ok(found)
    };
    let every = || up(leader, |_, _| true);
    let first = |mut found: Targets| {
        found.truncate(1);
        found
    };
    let found = match order {
        ImageOrder::Pull { .. } if !request.all_hosts => {
            let host = roomy(leader);
            let mut found = every();
            found.retain(|(name, _)| Some(name) == host.as_ref());
            found
        }
        ImageOrder::Pull { .. } | ImageOrder::Prune { .. } | ImageOrder::Usage => every(),
        ImageOrder::Login { .. } => first(every()),
        ImageOrder::Push { image, .. } | ImageOrder::Inspect { image } => first(holders(image)?),
        ImageOrder::Tag { image, .. } | ImageOrder::Remove { image, .. } => holders(image)?,
        ImageOrder::Bring { .. } => Vec::new(),
    };
    if found.is_empty() {
        return Err(Refusal::UnknownHost {
            host: "any that is up".to_owned(),
        });
    }
    Ok(found)
}

pub async fn stream(
    member: Arc<Member>,
    leader: Arc<Leader>,
    request: ImageWorkRequest,
) -> Result<impl Stream<Item = Result<Document, Status>> + Send + use<>, Status> {
    read(&leader).await?;
    let mut order: ImageOrder = document::read_field(request.order.clone())?;
    if matches!(order, ImageOrder::Bring { .. }) {
        return Err(invalid("bring", "agents do it by themselves"));
    }
    let targets = targets(&leader, &request, &order).map_err(failure::refused)?;
    if let ImageOrder::Pull { peers, .. } = &mut order {
        *peers = images::peers(&leader, |_, report| !report.images.is_empty());
    }
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let work = async {
            if matches!(order, ImageOrder::Pull { .. }) {
                pull(&member, &targets, order, &sender).await;
            } else {
                let each = targets
                    .iter()
                    .map(|target| on_host(&member, target, &order, &sender));
                join_all(each).await;
            }
        };
        tokio::select! {
            done = leader.scope.run(work) => if done.is_none() {
                let _ = sender.send(Err(lost())).await;
            },
            () = sender.closed() => {}
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// One host asks the registry; the others get it from that one.
async fn pull(member: &Member, targets: &Targets, order: ImageOrder, sender: &Sender) {
    let Some((first, others)) = targets.split_first() else {
        return;
    };
    let Some(ImageNews::Pulled { image, .. }) = on_host(member, first, &order, sender).await else {
        return;
    };
    let name = match &order {
        ImageOrder::Pull { reference, .. } => reference.name(),
        _ => None,
    };
    let bring = ImageOrder::Bring {
        image: image.id.clone(),
        names: name.into_iter().collect(),
        peers: vec![godwit_types::ImagePeer {
            host: first.0.clone(),
            address: first.1.clone(),
        }],
    };
    let each = others
        .iter()
        .map(|target| on_host(member, target, &bring, sender));
    join_all(each).await;
}

fn client(member: &Member, (host, address): &(HostName, String)) -> HostServiceClient<Channel> {
    HostServiceClient::new(member.host(host, address)).max_decoding_message_size(limits::MESSAGE)
}

/// Passes on what a host says, and answers its result. A host that breaks off has failed.
async fn on_host(
    member: &Member,
    target: &(HostName, String),
    order: &ImageOrder,
    sender: &Sender,
) -> Option<ImageNews> {
    let host = &target.0;
    let pass_on = async |news: ImageNews| {
        let news = HostImageNews {
            host: host.clone(),
            news,
        };
        let _ = sender.send(Ok(document::write(&news))).await;
    };
    let asked = async {
        let mut stream = client(member, target)
            .image_work(document::write(order))
            .await?
            .into_inner();
        while let Some(said) = stream.message().await? {
            let news: ImageNews = document::read(&said)?;
            pass_on(news.clone()).await;
            if news.is_result() {
                return Ok(news);
            }
        }
        Err(Status::unavailable("it broke off"))
    };
    match asked.await {
        Ok(news) => Some(news),
        Err(status) => {
            let text = format!("host `{host}`: {}", status.message());
            let failure = CommandFailure::new(FailureKind::Peer, text);
            pass_on(ImageNews::Failed { failure }).await;
            None
        }
    }
}

/// Pulls for a container that is to run on a host. Answers the image.
pub(super) async fn pull_for(
    member: &Member,
    leader: &Leader,
    host: &HostName,
    order: ImageOrder,
) -> Result<Digest, CommandFailure> {
    let unreached = |text: String| CommandFailure::new(FailureKind::NotFound, text);
    let state = leader.state();
    let address = state.hosts.get(host).map(|known| known.address.clone());
    let address = address.ok_or_else(|| unreached(format!("no host `{host}`")))?;
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let drain = async { while receiver.recv().await.is_some() {} };
    let target = (host.clone(), address);
    let pull = async {
        let result = on_host(member, &target, &order, &sender).await;
        drop(sender);
        result
    };
    let (result, ()) = tokio::join!(pull, drain);
    match result {
        Some(ImageNews::Pulled { image, .. }) => Ok(image.id),
        Some(ImageNews::Failed { failure }) => Err(failure),
        _ => Err(unreached(format!("host `{host}` could not be asked"))),
    }
}

pub async fn save(
    member: Arc<Member>,
    leader: Arc<Leader>,
    request: SaveImagesRequest,
) -> Result<impl Stream<Item = Result<SavedChunk, Status>> + Send + use<>, Status> {
    read(&leader).await?;
    if request.images.is_empty() {
        return Err(invalid("save", "no image is named"));
    }
    let all = |report: &AgentReport| {
        let mut wanted = request.images.iter();
        wanted.all(|text| report.images.iter().any(|known| means(known, text)))
    };
    let found = if request.host.is_empty() {
        up(&leader, |_, report| all(report))
    } else {
        named(&leader, std::slice::from_ref(&request.host)).map_err(failure::refused)?
    };
    let target = found.first().ok_or_else(|| {
        let image = request.images.join("`, `");
        failure::refused(Refusal::NoHostForImage { image })
    })?;
    let chunks = client(&member, target).save_images(request).await?;
    let chunks = chunks.into_inner();
    Ok(chunks.map(|chunk| chunk.map(|chunk| SavedChunk { data: chunk.data })))
}
