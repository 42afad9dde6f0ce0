//! Where a new container goes.

use godwit_types::{HostName, Phase};

use crate::state::{Migration, State};

/// A host as the leader sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub host: HostName,
    /// In contact.
    pub up: bool,
    pub has_image: bool,
}

/// The host with the fewest containers, those on their way to it included, among those that are up,
/// have the image and are not to be left; the first by name when several are.
pub fn choose(state: &State, candidates: &[Candidate]) -> Option<HostName> {
    candidates
        .iter()
        .filter(|candidate| candidate.up && candidate.has_image)
        .filter(|candidate| !state.is_draining(&candidate.host))
        .min_by_key(|candidate| (burden(state, &candidate.host), &candidate.host))
        .map(|candidate| candidate.host.clone())
}

/// Its containers, and those that a migration, queued or under way, will bring.
fn burden(state: &State, host: &HostName) -> usize {
    let coming =
        |m: &&Migration| m.to == *host && !m.phase.is_committed() && m.phase != Phase::Aborting;
    state.owned_by(host).count() + state.active_migrations().filter(coming).count()
}
