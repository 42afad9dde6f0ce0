//! Where in a migration something breaks.

use std::fmt;

use godwit_types::Phase;

/// Whose daemon is about to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Source,
    Destination,
    Leader,
}

/// A migration in this phase, and the next act not yet begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub phase: Phase,
    /// The name of the act, as daemons know it.
    pub act: &'static str,
    pub actor: Actor,
}

/// None: nothing is done next. A phase that is added has to be placed here.
pub fn point(phase: Phase) -> Option<Point> {
    let (act, actor) = match phase {
        Phase::Pending => ("check-source", Actor::Source),
        Phase::Preflight => ("prepare", Actor::Destination),
        Phase::Reserved => ("pre-copy", Actor::Source),
        Phase::PreCopy => ("freeze", Actor::Source),
        Phase::Frozen => ("transfer", Actor::Source),
        Phase::Transferred => ("stage", Actor::Destination),
        Phase::Staged => ("commit", Actor::Leader),
        Phase::Committed => ("resume", Actor::Destination),
        Phase::Resumed => ("release", Actor::Source),
        Phase::Done | Phase::Aborting | Phase::Aborted => return None,
    };
    Some(Point { phase, act, actor })
}

/// In the order in which a migration comes to them.
pub fn all() -> Vec<Point> {
    Phase::ALL.into_iter().filter_map(point).collect()
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (before {})", self.phase, self.act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_that_something_follows_is_a_point() {
        assert_eq!(all().len(), Phase::ALL.len() - 3);
    }
}
