//! What must hold, what must come, and what must be possible.

use godwit_agent::ledger::Role;
use godwit_core::RecoveredBy;
use godwit_types::Phase;
use stateright::Property;

use crate::{
    handover::Handover,
    instance::{Door, Instance},
    message::index,
    world::{CANCELLED, World, container},
};

pub const ONE_COPY: &str = "at most one copy runs";
pub const NOTHING_FORGOTTEN: &str = "no acknowledged output is forgotten";
pub const A_COPY_IS_THERE: &str = "the owner always has a copy that runs or can";
pub const NOTHING_LEFT: &str = "a finished migration leaves nothing behind";
pub const RECOVERED_BY_ITSELF: &str = "the source is used again by the destination's definite word";
pub const RECOVERED_BY_OPERATOR: &str = "the source is used again by the operator's word";
pub const IT_ENDS: &str = "every migration ends";

/// Those that are checked in every state and on every path.
pub const MUST_HOLD: [&str; 5] = [
    ONE_COPY,
    NOTHING_FORGOTTEN,
    A_COPY_IS_THERE,
    NOTHING_LEFT,
    IT_ENDS,
];

/// With lost shims.
pub fn recoveries(operator: bool) -> Vec<Property<Handover>> {
    let mut all = vec![Property::sometimes(
        RECOVERED_BY_ITSELF,
        |_, world: &World| recovered(world, RecoveredBy::Destination),
    )];
    if operator {
        all.push(Property::sometimes(
            RECOVERED_BY_OPERATOR,
            |_, world: &World| recovered(world, RecoveredBy::Operator),
        ));
    }
    all
}

pub fn all() -> Vec<Property<Handover>> {
    vec![
        Property::always(ONE_COPY, |_, world| one_copy(world)),
        Property::always(NOTHING_FORGOTTEN, |_, world: &World| !world.forgot),
        Property::always(A_COPY_IS_THERE, |_, world| a_copy_is_there(world)),
        Property::always(NOTHING_LEFT, |_, world| nothing_left(world)),
        // Once it holds it holds for ever, and no path goes in a circle: every step uses up a
        // message or a fault. So a path that ends without it is one that never ends in practice.
        Property::eventually(IT_ENDS, |model: &Handover, world: &World| {
            world.started == model.bounds.migrations && is_settled(world)
        }),
        Property::sometimes("a migration is committed and ends", |_, world: &World| {
            world.phase() == Some(Phase::Done)
        }),
        Property::sometimes("a failure is rolled back", |_, world: &World| {
            rolled_back(world, |error| error != CANCELLED)
        }),
        Property::sometimes("the user's cancel is rolled back", |_, world: &World| {
            rolled_back(world, |error| error == CANCELLED)
        }),
        Property::sometimes("a freeze is thawed", |_, world: &World| {
            rolled_back(world, |_| true) && world.seen > 1
        }),
        Property::sometimes(
            "a migration ends under another leader",
            |_, world: &World| world.phase() == Some(Phase::Done) && world.former.is_some(),
        ),
    ]
}

/// The container went back after a commit, and runs. `by`: an operator's word or the destination's.
fn recovered(world: &World, by: RecoveredBy) -> bool {
    let owner = index(&world.log.containers[&container()].host);
    let went_back = world.log.migrations.values().any(|migration| {
        migration.phase == Phase::Aborted && migration.recovered.is_some_and(|is| is.by == by)
    });
    went_back && world.hosts[owner].instance.runs()
}

fn is_settled(world: &World) -> bool {
    world.log.active_migrations().next().is_none()
}

fn one_copy(world: &World) -> bool {
    world.hosts.iter().filter(|h| h.instance.runs()).count() <= 1
}

fn rolled_back(world: &World, why: impl Fn(&str) -> bool) -> bool {
    world.log.migrations.values().any(|migration| {
        migration.phase == Phase::Aborted && migration.error.as_deref().is_some_and(&why)
    })
}

/// By the log the owner alone may run: what others hold is of no use any more. A container that
/// has ended by itself needs no copy.
fn a_copy_is_there(world: &World) -> bool {
    let owner = index(&world.log.containers[&container()].host);
    match &world.hosts[owner].instance {
        Instance::Running { .. } | Instance::Exited => true,
        Instance::Frozen { value, .. } | Instance::Staged { value, .. } => *value == world.seen,
        Instance::Absent | Instance::Armed { .. } | Instance::Lost { .. } => false,
    }
}

fn nothing_left(world: &World) -> bool {
    if world.started == 0 || !is_settled(world) {
        return true;
    }
    let owner = index(&world.log.containers[&container()].host);
    let (owner, other) = (&world.hosts[owner], &world.hosts[1 - owner]);
    matches!(
        owner.instance,
        Instance::Running { .. } | Instance::Exited | Instance::Lost { .. }
    ) && other.instance == Instance::Absent
        && matches!(other.memory.role, Role::None { .. })
        && [owner, other]
            .iter()
            .all(|host| !host.flow && host.door == Door::Closed)
}
