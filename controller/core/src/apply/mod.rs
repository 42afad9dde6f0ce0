//! One command applied: a new state, or a refusal that changes nothing. One file per entity.

mod container;
mod drain;
mod host;
mod migration;
mod network;
mod ports;
mod queue;
mod recovery;
mod volume;

pub use container::is_news;
use godwit_types::Refusal;
pub(crate) use ports::taken;

use crate::{command::Command, state::State};

/// What a command that was not refused did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// It was a repeat, or what it said was known or is outdated.
    Unchanged,
}

/// Applies one command. Every handler checks everything before it changes anything.
pub fn apply(state: &mut State, command: &Command) -> Result<Applied, Refusal> {
    #[cfg(debug_assertions)]
    let before = state.clone();
    let result = dispatch(state, command);
    if result == Ok(Applied::Changed) {
        queue::settle(state);
    }
    #[cfg(debug_assertions)]
    {
        if let Err(broken) = crate::invariants::check(&before, state) {
            panic!("after {command:?}: {broken}");
        }
        if result.is_err() || result == Ok(Applied::Unchanged) {
            assert!(
                before == *state,
                "{command:?} changed something: {result:?}"
            );
        }
    }
    result
}

fn dispatch(state: &mut State, command: &Command) -> Result<Applied, Refusal> {
    match command {
        Command::Init { cluster } => Ok(host::init(state, cluster)),
        Command::HostSeen {
            name,
            address,
            underlay,
        } => Ok(host::seen(state, name, address, *underlay)),
        Command::CreateNetwork { name, subnet } => network::create(state, name, *subnet),
        Command::CreateContainer(new) => container::create(state, new),
        Command::ReportInstance {
            host,
            container,
            generation,
            state: instance,
        } => Ok(container::report(
            state,
            host,
            container,
            *generation,
            instance.as_ref(),
        )),
        Command::BeginStop {
            container,
            grace_ms,
        } => container::begin_stop(state, container, *grace_ms),
        Command::CancelStop { container } => container::cancel_stop(state, container),
        Command::BeginRemove {
            container,
            force,
            volumes,
        } => container::begin_remove(state, container, *force, *volumes),
        Command::Removed { container } => container::removed(state, container),
        Command::MarkFailed { container, reason } => {
            container::mark_failed(state, container, reason)
        }
        Command::StartMigration {
            id,
            container,
            to,
            started_ms,
            options,
            priority,
            drain,
        } => migration::start(
            state,
            id,
            container,
            to,
            *started_ms,
            options,
            *priority,
            *drain,
        ),
        Command::Advance {
            migration,
            to,
            record,
        } => migration::advance(state, migration, *to, record),
        Command::Abort {
            migration,
            error,
            failure,
        } => migration::abort(state, migration, error, *failure),
        Command::TakeBack {
            migration,
            by,
            error,
        } => recovery::take_back(state, migration, *by, error),
        Command::Cleared { migration } => Ok(recovery::cleared(state, migration)),
        Command::SetLimits { limits } => queue::set_limits(state, limits),
        Command::BeginDrain { host, to } => drain::begin(state, host, to),
        Command::EndDrain { host } => drain::end(state, host),
        Command::DrainFailed {
            host,
            container,
            reason,
            for_good,
        } => Ok(drain::note(state, host, container, reason, *for_good)),
        Command::RemoveNetwork { network } => network::remove(state, network),
        Command::CreateVolume(new) => volume::create(state, new),
        Command::BeginRemoveVolume { volume } => volume::begin_remove(state, volume),
        Command::VolumeRemoved { volume, id } => Ok(volume::removed(state, volume, id)),
    }
}
