//! A migration as it was asked for, understood.

use godwit_core::{Container, State, find_container};
use godwit_proto::control::MigrateRequest;
use godwit_types::{HostName, MAX_DOWNTIME_MS, MigrationOptions, OptionError, Priority, Refusal};

use super::run::find_host;
use crate::leader::{Leader, against};

/// A move that was understood.
pub struct Move<'a> {
    pub container: &'a Container,
    pub to: HostName,
    pub options: MigrationOptions,
    pub priority: Priority,
    /// Every reason against it, the gravest first.
    pub against: Vec<Refusal>,
}

/// An error: it is not even known what should move whither, or how.
pub fn preflight<'a>(
    leader: &Leader,
    state: &'a State,
    request: &MigrateRequest,
) -> Result<Move<'a>, Refusal> {
    let container = find_container(state, &request.container)?;
    let to = find_host(state, &request.to)?;
    let invalid = |error: OptionError| Refusal::Invalid {
        what: format!("{} {}", error.option, error.given),
        problem: error.problem,
    };
    let options = options(request).map_err(invalid)?;
    let priority = match request.priority.as_str() {
        "" => Priority::default(),
        text => text.parse().map_err(invalid)?,
    };
    let against = against(&leader.sessions.reports(), state, container, &to);
    Ok(Move {
        container,
        to,
        options,
        priority,
        against,
    })
}

fn options(request: &MigrateRequest) -> Result<MigrationOptions, OptionError> {
    let given = |value: u64| (value != 0).then_some(value);
    let options = MigrationOptions {
        mode: match request.mode.as_str() {
            "" => Default::default(),
            text => text.parse()?,
        },
        max_downtime_ms: given(request.max_downtime_ms).unwrap_or(MAX_DOWNTIME_MS),
        max_bandwidth: given(request.max_bandwidth),
        timeout_ms: given(request.timeout_ms),
        compress: match request.compress.as_str() {
            "" => Default::default(),
            text => text.parse()?,
        },
    };
    options.check()?;
    Ok(options)
}
