//! Run: choose a host, create the container, and wait until it runs there.

use std::sync::Arc;

use godwit_core::{Candidate, Command, DEFAULT_NETWORK, NewContainer, State, choose};
use godwit_proto::{control::RunRequest, document, failure, v1::Document};
use godwit_types::{
    AgentReport, ByteSize, ContainerName, Cpus, Digest, FailureKind, HostName, ImageName,
    ImageOrder, Limits, NetworkName, Options, Refusal, RegistryCredentials,
};
use tonic::Status;

use super::{containers::view_of, image_work, invalid, job_status, read, status_of};
use crate::{
    ids,
    leader::{Job, JobError, Leader, images, sessions::AskError},
    member::Member,
};

pub async fn run(
    member: &Member,
    leader: &Arc<Leader>,
    request: RunRequest,
) -> Result<Document, Status> {
    let state = read(leader).await?;
    let image: ImageName = request
        .image
        .parse()
        .map_err(|reason| invalid(&request.image, reason))?;
    let name = match request.name.as_str() {
        "" => ids::container_name(&state),
        text => ContainerName::new(text).map_err(|reason| invalid(text, reason))?,
    };
    let network = match request.network.as_str() {
        "none" => None,
        "" => Some(DEFAULT_NETWORK),
        text => Some(text),
    };
    let network = network
        .map(|text| NetworkName::new(text).map_err(|reason| invalid(text, reason)))
        .transpose()?;
    if let Some(bad) = request.env.iter().find(|entry| !entry.contains('=')) {
        return Err(invalid(bad, "an environment entry is `KEY=value`"));
    }
    let credentials = request
        .credentials
        .as_ref()
        .map(document::read)
        .transpose()?;
    let host = place(leader, &state, &request.host, &image).map_err(failure::refused)?;
    let image_id = obtain(member, leader, &host, &request, &image, credentials).await?;
    let id = ids::container_id();
    let new = NewContainer {
        id: id.clone(),
        name,
        image,
        image_id,
        command: request.command,
        env: request.env,
        limits: Limits {
            memory: (request.memory != 0).then_some(ByteSize(request.memory)),
            cpus: (request.cpus_milli != 0).then_some(Cpus(request.cpus_milli)),
            pids: (request.pids != 0).then_some(request.pids),
        },
        hostname: String::new(),
        options: read_options(request.options)?,
        network,
        host,
        created_ms: ids::now_ms(),
    };
    let done = leader.jobs.wait(Job::Run(id.clone()));
    let command = Command::CreateContainer(Box::new(new));
    leader.raft.propose(&command).await.map_err(status_of)?;
    let result = done.await.unwrap_or(Err(JobError::Lost));
    result.map_err(|error| match error {
        JobError::Failed(found) => failure::failed(found),
        other => job_status(other),
    })?;
    view_of(leader, &id)
}

/// None: an older command line, which knew none.
fn read_options(document: Option<Document>) -> Result<Options, Status> {
    let options = document.map(|document| document::read(&document));
    Ok(options.transpose()?.unwrap_or_default())
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
) -> Result<HostName, Refusal> {
    let reports = leader.sessions.reports();
    if wanted.is_empty() {
        let candidate = |(host, (up, report)): (&HostName, &(bool, AgentReport))| Candidate {
            host: host.clone(),
            up: *up,
            has_image: image_on(report, image).is_some(),
        };
        let candidates: Vec<_> = reports.iter().map(candidate).collect();
        let host = choose(state, &candidates).or_else(|| image_work::roomy(leader));
        return host.ok_or_else(|| Refusal::NoHostForImage {
            image: image.to_string(),
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
