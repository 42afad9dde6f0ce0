//! Run: choose a host, create the container, and wait until it runs there.

use std::{sync::Arc, time::Duration};

use godwit_core::{Candidate, Command, NewContainer, State, choose};
use godwit_proto::{control::RunRequest, document, failure, v1::Document};
use godwit_types::{
    AgentReport, ByteSize, Constraint, ContainerId, ContainerName, Cpus, Digest, FailureKind,
    HostName, ImageName, ImageOrder, Limits, Options, Refusal, RegistryCredentials,
};
use tonic::Status;

use super::{
    containers::view_of, image_work, invalid, job_status, ports, read, status_of, storage,
};
use crate::{
    ids,
    leader::{Job, JobError, Leader, images, sessions::AskError},
    member::Member,
};

const REPORT: Duration = Duration::from_millis(300);

pub async fn run(
    member: &Member,
    leader: &Arc<Leader>,
    request: RunRequest,
) -> Result<Document, Status> {
    let new = understand(member, leader, request, false).await?;
    let id = new.id.clone();
    let done = leader.jobs.wait(Job::Run(id.clone()));
    let command = Command::CreateContainer(Box::new(new));
    leader.raft.propose(&command).await.map_err(status_of)?;
    let result = done.await.unwrap_or(Err(JobError::Lost));
    result.map_err(|error| match error {
        JobError::Failed(found) => failure::failed(found),
        other => job_status(other),
    })?;
    reported(leader, &id).await;
    view_of(leader, &id)
}

/// Waits a moment for what its host reports right behind its answer, such as what it can't do.
async fn reported(leader: &Leader, id: &ContainerId) {
    let mut published = leader.raft.published();
    let said = published.wait_for(|published| {
        let container = published.state.containers.get(id);
        container.is_none_or(|container| container.details.started_ms != 0)
    });
    // An older agent says nothing.
    let _ = tokio::time::timeout(REPORT, said).await;
}

/// Made, and started when somebody asks for it.
pub async fn create(
    member: &Member,
    leader: &Arc<Leader>,
    request: RunRequest,
) -> Result<Document, Status> {
    let new = understand(member, leader, request, true).await?;
    let id = new.id.clone();
    let command = Command::CreateContainer(Box::new(new));
    leader.raft.propose(&command).await.map_err(status_of)?;
    view_of(leader, &id)
}

async fn understand(
    member: &Member,
    leader: &Arc<Leader>,
    request: RunRequest,
    only_create: bool,
) -> Result<NewContainer, Status> {
    let state = read(leader).await?;
    let image: ImageName = request
        .image
        .parse()
        .map_err(|reason| invalid(&request.image, reason))?;
    let name = match request.name.as_str() {
        "" => ids::container_name(&state),
        text => ContainerName::new(text).map_err(|reason| invalid(text, reason))?,
    };
    let (network, mode) = ports::network(&state, &request.network).map_err(failure::refused)?;
    if let Some(bad) = request.env.iter().find(|entry| !entry.contains('=')) {
        return Err(invalid(bad, "an environment entry is `KEY=value`"));
    }
    let mut options = read_options(request.options.clone())?;
    // What the image wants besides binds it to no host.
    let early = storage::complete(&state, options.storage.clone(), &[]);
    let early = early.map_err(failure::refused)?;
    let bound = storage::host(&state, &early).or_else(|| ports::host(&state, &mode));
    let wanted = match (request.host.as_str(), bound) {
        ("", Some(host)) => host.to_string(),
        (wanted, _) => wanted.to_owned(),
    };
    let limits = match &request.limits {
        Some(limits) => document::read(limits)?,
        None => Limits {
            memory: (request.memory != 0).then_some(ByteSize(request.memory)),
            cpus: (request.cpus_milli != 0).then_some(Cpus(request.cpus_milli)),
            pids: (request.pids != 0).then_some(request.pids),
            ..Limits::default()
        },
    };
    let refuse = |problem| invalid(name.as_str(), problem);
    limits.check().map_err(refuse)?;
    options.process.check().map_err(refuse)?;
    options.policy.check().map_err(refuse)?;
    let constraints = &options.policy.constraints;
    let host = place(leader, &state, &wanted, &image, constraints).map_err(failure::refused)?;
    let credentials = request.credentials.as_ref().map(document::read);
    let credentials = credentials.transpose()?;
    let image_id = obtain(member, leader, &host, &request, &image, credentials).await?;
    // Only now its host has the image, which may want more.
    let (volumes, exposed) = of_image(leader, &image_id);
    options.storage =
        storage::complete(&state, options.storage, &volumes).map_err(failure::refused)?;
    options.ports = ports::complete(&state, options.ports, mode, network.is_some(), &exposed)
        .map_err(failure::refused)?;
    Ok(NewContainer {
        id: ids::container_id(),
        name,
        image,
        image_id,
        command: request.command,
        env: request.env,
        limits,
        hostname: options.process.hostname.clone(),
        options,
        network,
        host,
        created_ms: ids::now_ms(),
        only_create,
    })
}

/// None: an older command line, which knew none.
fn read_options(document: Option<Document>) -> Result<Options, Status> {
    let options = document.map(|document| document::read(&document));
    Ok(options.transpose()?.unwrap_or_default())
}

/// Where the image wants volumes and what it serves; by whatever host, since it is the same on all
/// of them.
fn of_image(leader: &Leader, image: &Digest) -> (Vec<String>, Vec<String>) {
    let reports = leader.sessions.reports();
    let mut images = reports.values().flat_map(|(_, report)| &report.images);
    let found = images.find(|summary| summary.id == *image);
    let found = found.map(|summary| (summary.volumes.clone(), summary.exposed.clone()));
    found.unwrap_or_default()
}

/// The image by this name in one host's store.
pub(super) fn image_on(report: &AgentReport, image: &ImageName) -> Option<Digest> {
    let mut images = report.images.iter();
    images
        .find(|summary| summary.names.contains(image))
        .map(|summary| summary.id.clone())
}

/// The host that was asked for, or the best: one that has the image, if any does.
fn place(
    leader: &Leader,
    state: &State,
    wanted: &str,
    image: &ImageName,
    constraints: &[Constraint],
) -> Result<HostName, Refusal> {
    let reports = leader.sessions.reports();
    if wanted.is_empty() {
        let candidate = |(host, (up, report)): (&HostName, &(bool, AgentReport))| Candidate {
            host: host.clone(),
            up: *up,
            has_image: image_on(report, image).is_some(),
        };
        let meets = |(host, _): &(&HostName, _)| {
            let labels = state.hosts.get(*host).map(|host| &host.labels);
            labels.is_some_and(|labels| constraints.iter().all(|c| c.holds(labels)))
        };
        let candidates: Vec<_> = reports.iter().filter(meets).map(candidate).collect();
        let host = choose(state, &candidates);
        // Any can get it from a registry.
        let any = candidates.iter().map(|candidate| Candidate {
            host: candidate.host.clone(),
            up: candidate.up,
            has_image: true,
        });
        let host = host.or_else(|| choose(state, &any.collect::<Vec<_>>()));
        return host.ok_or_else(|| match constraints {
            [] => Refusal::NoHostForImage {
                image: image.to_string(),
            },
            some => Refusal::NoHostMeets {
                image: image.to_string(),
                constraints: some
                    .iter()
                    .map(|c| format!("`{c}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            },
        });
    }
    let host = find_host(state, wanted)?;
    if state.is_draining(&host) {
        return Err(Refusal::HostDraining { host });
    }
    let up = reports.get(&host).is_some_and(|(up, _)| *up);
    up.then_some(host.clone()).ok_or(Refusal::HostDown { host })
}

/// The image, which the host has then: it may get it from the other hosts, and only then from a
/// registry.
async fn obtain(
    member: &Member,
    leader: &Arc<Leader>,
    host: &HostName,
    request: &RunRequest,
    image: &ImageName,
    credentials: Option<RegistryCredentials>,
) -> Result<Digest, Status> {
    let reports = leader.sessions.reports();
    let here = reports
        .get(host)
        .and_then(|(_, report)| image_on(report, image));
    if let Some(id) = here {
        return Ok(id);
    }
    let mut others = reports.values().filter(|(up, _)| *up);
    if let Some(id) = others.find_map(|(_, report)| image_on(report, image)) {
        let brought = images::bring(leader, host, &id).await;
        return brought.map(|()| id).map_err(|error| match error {
            AskError::Failed(found) => failure::failed(found),
            AskError::HostDown(host) => failure::refused(Refusal::HostDown { host }),
        });
    }
    let reference = request.image.parse();
    let reference = reference.map_err(|reason| invalid(&request.image, reason))?;
    let order = ImageOrder::Pull {
        reference,
        platform: None,
        credentials,
        peers: images::peers(leader, |_, report| !report.images.is_empty()),
    };
    let pulled = image_work::pull_for(member, leader, host, order).await;
    pulled.map_err(|found| match found.kind {
        FailureKind::NotFound if request.host.is_empty() => {
            failure::refused(Refusal::NoHostForImage {
                image: image.to_string(),
            })
        }
        FailureKind::NotFound => failure::refused(Refusal::ImageMissing {
            host: host.clone(),
            image: image.to_string(),
        }),
        _ => failure::failed(found),
    })
}

pub(super) fn find_host(state: &State, text: &str) -> Result<HostName, Refusal> {
    let mut hosts = state.hosts.keys();
    hosts
        .find(|host| host.as_str() == text)
        .cloned()
        .ok_or_else(|| Refusal::UnknownHost {
            host: text.to_owned(),
        })
}
