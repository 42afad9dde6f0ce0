//! Run: choose a host, create the container, and wait until it runs there.

use std::sync::Arc;

use godwit_core::{Candidate, Command, NewContainer, State, choose};
use godwit_proto::{control::RunRequest, document, failure, v1::Document};
use godwit_types::{
    AgentReport, ByteSize, ContainerName, Cpus, Digest, HostName, ImageName, Limits, Options,
    Refusal,
};
use tonic::Status;

use super::{containers::view_of, invalid, job_status, ports, read, status_of, storage};
use crate::{
    ids,
    leader::{Job, JobError, Leader},
};

pub async fn run(leader: &Arc<Leader>, request: RunRequest) -> Result<Document, Status> {
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
    let mut options = read_options(request.options)?;
    let (volumes, exposed) = of_image(leader, &image);
    options.storage =
        storage::complete(&state, options.storage, &volumes).map_err(failure::refused)?;
    options.ports = ports::complete(&state, options.ports, mode, network.is_some(), &exposed)
        .map_err(failure::refused)?;
    let bound =
        storage::host(&state, &options.storage).or_else(|| ports::host(&state, &options.ports));
    let wanted = match (request.host.as_str(), bound) {
        ("", Some(host)) => host.to_string(),
        (wanted, _) => wanted.to_owned(),
    };
    let (host, image_id) = place(leader, &state, &wanted, &image).map_err(failure::refused)?;
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
        options,
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

/// Where the image wants volumes and what it serves; by whatever host, since it is the same on all
/// of them.
fn of_image(leader: &Leader, image: &ImageName) -> (Vec<String>, Vec<String>) {
    let reports = leader.sessions.reports();
    let mut images = reports.values().flat_map(|(_, report)| &report.images);
    let found = images.find(|summary| summary.names.contains(image));
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

fn place(
    leader: &Leader,
    state: &State,
    wanted: &str,
    image: &ImageName,
) -> Result<(HostName, Digest), Refusal> {
    let reports = leader.sessions.reports();
    if wanted.is_empty() {
        let candidate = |(host, (up, report)): (&HostName, &(bool, AgentReport))| Candidate {
            host: host.clone(),
            up: *up,
            has_image: image_on(report, image).is_some(),
        };
        let candidates: Vec<_> = reports.iter().map(candidate).collect();
        let host = choose(state, &candidates);
        let found = host.and_then(|host| {
            let id = image_on(&reports.get(&host)?.1, image)?;
            Some((host, id))
        });
        return found.ok_or_else(|| Refusal::NoHostForImage {
            image: image.to_string(),
        });
    }
    let host = find_host(state, wanted)?;
    if state.is_draining(&host) {
        return Err(Refusal::HostDraining { host });
    }
    let (_, report) = reports
        .get(&host)
        .filter(|(up, _)| *up)
        .ok_or_else(|| Refusal::HostDown { host: host.clone() })?;
    match image_on(report, image) {
        Some(id) => Ok((host, id)),
        None => Err(Refusal::ImageMissing {
            host,
            image: image.to_string(),
        }),
    }
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
