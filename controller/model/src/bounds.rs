//! How much may go wrong, so that there is an end to what is explored.

use std::env;

/// Everything else happens as often as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Crashes, losses, repeats, elections, time-outs, failures and ends of the container, in
    /// all: any mix of so many.
    pub faults: u8,
    /// One after the other; each goes to the host where the container is not.
    pub migrations: u8,
    /// Whether memory comes in rounds before the freeze.
    pub pre_copy: bool,
    /// Whether a shim can be lost with what it holds or runs. A copy that ran has no other: that
    /// it is there is not promised.
    pub lost_shims: bool,
    /// Whether an operator recovers from the source what is committed and lost at its destination.
    pub operator: bool,
}

/// Enlarges [`Bounds::faults`].
pub const FAULTS: &str = "GODWIT_MODEL_FAULTS";
/// Enlarges [`Bounds::migrations`].
pub const MIGRATIONS: &str = "GODWIT_MODEL_MIGRATIONS";

impl Default for Bounds {
    fn default() -> Self {
        Self {
            faults: 2,
            migrations: 1,
            pre_copy: true,
            lost_shims: false,
            operator: false,
        }
    }
}

impl Bounds {
    /// With what the environment says instead, where it says something.
    pub fn from_environment(self) -> Self {
        let read = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
        Self {
            faults: read(FAULTS).unwrap_or(self.faults),
            migrations: read(MIGRATIONS).unwrap_or(self.migrations),
            ..self
        }
    }
}
