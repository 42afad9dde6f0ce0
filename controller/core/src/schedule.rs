//! Where a new container goes.

use godwit_types::HostName;

use crate::state::State;

/// A host as the leader sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub host: HostName,
    /// In contact.
    pub up: bool,
    pub has_image: bool,
}

/// The host with the fewest containers among those that are up and have the image; the first by
/// name when several are.
pub fn choose(state: &State, candidates: &[Candidate]) -> Option<HostName> {
    candidates
        .iter()
        .filter(|candidate| candidate.up && candidate.has_image)
        .min_by_key(|candidate| (state.owned_by(&candidate.host).count(), &candidate.host))
        .map(|candidate| candidate.host.clone())
}
