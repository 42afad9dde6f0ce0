//! What the cluster knows and how it may change: the replicated state machine, pure.
//!
//! Every member feeds the same [`Command`]s to [`apply`] in the same order and ends with the
//! same [`State`]. Ids and times come in with the command; there is no clock, no randomness and
//! no map without an order here. [`next_step`] says what the leader has to ask of which host;
//! asking is `controller`'s work.

mod apply;
mod command;
mod course;
mod drain;
mod invariants;
mod job;
mod news;
mod phase;
mod query;
mod queue;
mod roster;
mod schedule;
mod state;
mod step;
mod together;
mod view;
mod volume;

pub use apply::{Applied, apply, is_news};
pub use command::{Command, NewContainer, Record};
pub use course::{Course, Written, nothing_left};
pub use drain::{Left, MAX_ATTEMPTS, backoff, left_on};
pub use invariants::check;
pub use job::{Job, due};
pub use news::news;
pub use phase::{Act, Row, Side, TABLE, Undo, abortable, follows, next, row};
pub use query::{find_container, find_migration, find_network, find_volume, table};
pub use queue::{next_to_start, place, queue};
pub use roster::{Group, MAX_MEMBERS, MemberChange, Roster, Turn, majority};
pub use schedule::{Candidate, choose};
pub use state::{
    Container, DEFAULT_NETWORK, Desired, Drain, DrainFailure, FORMAT, Host, Migration, Network,
    Recovered, RecoveredBy, State, StateError,
};
pub use step::{Ask, Memory, Step, clearing, container_operation, next_step, operation};
pub use together::{no_place, other as kept_with};
pub use view::{
    container_view, container_views, drain_view, host_views, migration_view, network_view,
    stopped_only,
};
pub use volume::{Volume, users, volume_view};
