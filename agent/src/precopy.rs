//! Memory ahead of the freeze: rounds to the destination while the container runs, and what a
//! migration would come to. [`crate::commands`] calls both.
//!
//! Today there are no rounds: all memory is sent in the freeze, whatever was asked for.

use std::time::Duration;

use godwit_types::{
    ContainerId, Estimate, Generation, HostName, MigrationId, MigrationOptions, Outcome,
};

use crate::{failures, host::Host, ledger::Answer};

/// Sends rounds until what is left fits in the freeze, and tells `host.progress` meanwhile. It
/// may be dropped at any moment, when the migration is undone: nothing of it may be left then.
pub async fn run(
    _host: &Host,
    _migration: &MigrationId,
    _container: &ContainerId,
    _generation: Generation,
    _to: &HostName,
    _address: &str,
    _options: &MigrationOptions,
) -> Answer {
    Ok(Outcome::PreCopied {
        rounds: Vec::new(),
        bytes: 0,
        predicted_freeze_us: 0,
    })
}

/// Watches the container for a while and says what moving it would come to. Changes nothing.
pub async fn sample(
    host: &Host,
    container: &ContainerId,
    _watch_for: Duration,
    _options: &MigrationOptions,
) -> Answer {
    let need = host.runtime.check_source(container).await;
    let bytes = need.map_err(|error| failures::of_runtime(&error))?;
    Ok(Outcome::Sampled {
        estimate: Estimate {
            bytes,
            resident_bytes: bytes,
            ..Estimate::default()
        },
    })
}
