//! Which hosts have an image, and bringing it to one that lacks it.

use std::sync::Arc;

use godwit_types::{
    AgentCommand, AgentReport, Digest, HostName, ImageName, ImagePeer, MigrationId, Phase, Verb,
};
use tracing::info;

use super::{Leader, sessions::AskError};
use crate::ids;

/// How a bringing ended.
pub enum Brought {
    Done,
    Failed(AskError),
    /// The migration that it was for was taken back meanwhile.
    TakenBack,
}

/// Whether a host said that it has this image.
pub fn has(report: &AgentReport, image: &Digest) -> bool {
    report.images.iter().any(|known| known.id == *image)
}

/// The hosts that are up and fit, with the addresses of their agents.
pub fn peers(leader: &Leader, fits: impl Fn(&HostName, &AgentReport) -> bool) -> Vec<ImagePeer> {
    let state = leader.state();
    let reports = leader.sessions.reports();
    let up = reports.iter().filter(|(_, (up, _))| *up);
    let fit = up.filter(|(host, (_, report))| fits(host, report));
    let peers = fit.filter_map(|(host, _)| {
        let address = state.hosts.get(host)?.address.clone();
        let host = host.clone();
        Some(ImagePeer { host, address })
    });
    peers.collect()
}

/// Has a host get an image from those that have it. Done at once where it has it.
pub async fn bring(leader: &Arc<Leader>, host: &HostName, image: &Digest) -> Result<(), AskError> {
    let reports = leader.sessions.reports();
    let there = reports.get(host).map(|(_, report)| report);
    if there.is_some_and(|report| has(report, image)) {
        return Ok(());
    }
    let holders = peers(leader, |_, report| has(report, image));
    let known = reports.values().flat_map(|(_, report)| &report.images);
    let known = known.filter(|summary| summary.id == *image);
    let mut names: Vec<ImageName> = known.flat_map(|summary| summary.names.clone()).collect();
    names.sort();
    names.dedup();
    // A name that means another image there goes on meaning that.
    let taken = there.map_or(&[][..], |report| &report.images);
    names.retain(|name| taken.iter().all(|other| !other.names.contains(name)));
    info!(%host, image = image.short(), from = holders.len(), "bringing an image");
    let command = AgentCommand {
        operation: ids::operation_id(),
        verb: Verb::BringImage {
            image: image.clone(),
            names,
            peers: holders,
        },
    };
    leader.sessions.ask(host, command).await.map(drop)
}

/// The same before a migration's freeze: ends when that is taken back.
pub async fn bring_for(
    leader: &Arc<Leader>,
    migration: &MigrationId,
    host: &HostName,
    image: &Digest,
) -> Brought {
    let mut published = leader.raft.published();
    let taken_back = published.wait_for(|published| {
        let stored = published.state.migrations.get(migration);
        stored.is_some_and(|stored| stored.phase == Phase::Aborting)
    });
    tokio::select! {
        biased;
        brought = bring(leader, host, image) => match brought {
            Ok(()) => Brought::Done,
            Err(error) => Brought::Failed(error),
        },
        // An error says that the member stops: its lead and this work end with it.
        _ = taken_back => Brought::TakenBack,
    }
}
