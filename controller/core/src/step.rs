//! What the leader has to do next for a migration: pure, so that every leader finds the same.

use godwit_types::{
    AgentCommand, ContainerId, HostName, MigrationId, MigrationMode, Need, OperationId, Phase,
    PostCopyTo, Verb,
};

use crate::{
    phase::{self, Act, Side, Undo},
    state::{Container, Migration, State},
};

/// One command for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub act: Act,
    pub host: HostName,
    pub command: AgentCommand,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask; when `reaches` is given, the answer completes that phase.
    Ask { ask: Ask, reaches: Option<Phase> },
    /// Store the phase `Committed`.
    Commit,
    /// Ask all of them until each has answered, then store `Aborted`.
    Undo(Vec<Ask>),
    /// Nothing: the migration is final.
    Finished,
    /// The container or a host is not known any more: only an abort can follow.
    Impossible(&'static str),
}

/// What one leader remembers of a migration between two steps. The next leader starts without.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// What `CheckSource` answered.
    pub need: Option<Need>,
    /// How often the present act was answered with a failure. An agent answers a repeated
    /// operation id as it did before, so that a new attempt needs a new id.
    pub attempt: u32,
}

/// The id of an act of a migration: the next leader finds the same.
pub fn operation(migration: &MigrationId, act: Act, attempt: u32) -> OperationId {
    let text = format!("{migration}{:08x}{attempt:08x}", act as u32);
    OperationId::new(text).expect("16 + 8 + 8 digits")
}

/// The id of a command about a container outside of migrations: the next leader finds the same.
pub fn container_operation(container: &ContainerId, verb: &Verb, attempt: u32) -> OperationId {
    // Above every `Act`, so that a container can't collide with a migration of the same digits.
    let kind: u32 = match verb {
        Verb::Run { .. } => 0x101,
        Verb::Stop { .. } => 0x102,
        Verb::Remove { .. } => 0x103,
        _ => 0x1ff,
    };
    let text = format!("{}{kind:08x}{attempt:08x}", &container.as_str()[..16]);
    OperationId::new(text).expect("16 + 8 + 8 digits")
}

/// What the destination of a recovered migration is told until it has done it, None where its host
/// is not known.
pub fn clearing(state: &State, migration: &Migration) -> Option<Ask> {
    let host = migration.to.clone();
    state.hosts.get(&host)?;
    // What came there since has a newer generation, and is not touched.
    let (_, owner) = migration.owner();
    Some(Ask {
        act: Act::Discard,
        host,
        command: AgentCommand {
            operation: operation(&migration.id, Act::Discard, 0),
            verb: Verb::Discard {
                migration: migration.id.clone(),
                container: migration.container.clone(),
                generation: Some(owner),
            },
        },
    })
}

/// What to do next for `migration`, which may be a phase ahead of the stored one.
pub fn next_step(state: &State, migration: &Migration, memory: &Memory) -> Step {
    let Some(container) = state.containers.get(&migration.container) else {
        return Step::Impossible("the container is gone");
    };
    let ask = |act, attempt| ask(state, migration, container, memory, act, attempt);
    if migration.phase == Phase::Aborting {
        let Undo::Ask(acts) = phase::TABLE[0].undo else {
            return Step::Finished;
        };
        return match acts.iter().map(|act| ask(*act, 0)).collect() {
            Some(asks) => Step::Undo(asks),
            None => Step::Impossible("a host is gone"),
        };
    }
    let Some(row) = phase::next(migration.phase) else {
        return Step::Finished;
    };
    let act = match row.acts {
        [] => return Step::Commit,
        [first, _] if memory.need.is_none() => first,
        [.., last] => last,
    };
    match ask(*act, memory.attempt) {
        Some(found) => Step::Ask {
            reaches: (row.acts.last() == Some(act)).then_some(row.phase),
            ask: found,
        },
        None => Step::Impossible("a host is gone"),
    }
}

fn ask(
    state: &State,
    migration: &Migration,
    container: &Container,
    memory: &Memory,
    act: Act,
    attempt: u32,
) -> Option<Ask> {
    let host = match act.side() {
        Side::Source => &migration.from,
        Side::Destination => &migration.to,
    };
    state.hosts.get(host)?;
    let id = || migration.id.clone();
    let it = || migration.container.clone();
    let spec = || Box::new(container.spec.clone());
    let before = migration.generation;
    let after = before.next();
    let (_, owner) = migration.owner();
    let options = || migration.options.clone();
    let verb = match act {
        Act::CheckSource => Verb::CheckSource {
            container: it(),
            generation: before,
            options: options(),
        },
        Act::CheckDestination => Verb::CheckDestination {
            container: it(),
            spec: spec(),
            need: memory.need.unwrap_or_default().disk,
            memory: memory.need.unwrap_or_default().memory,
        },
        Act::Prepare => Verb::Prepare {
            migration: id(),
            container: it(),
            generation: after,
            spec: spec(),
            from: migration.from.clone(),
            options: options(),
            details: Box::new(container.details.clone()),
        },
        // Also where memory is sent in the freeze: the source then answers at once.
        Act::PreCopy => Verb::PreCopy {
            migration: id(),
            container: it(),
            generation: before,
            to: migration.to.clone(),
            address: state.hosts.get(&migration.to)?.address.clone(),
            options: options(),
        },
        Act::Freeze => Verb::Freeze {
            migration: id(),
            container: it(),
            generation: before,
            options: options(),
        },
        Act::Transfer => Verb::Transfer {
            migration: id(),
            container: it(),
            generation: before,
            to: migration.to.clone(),
            address: state.hosts.get(&migration.to)?.address.clone(),
        },
        Act::Stage => Verb::Stage {
            migration: id(),
            container: it(),
            generation: after,
        },
        Act::Resume => Verb::Resume {
            migration: id(),
            container: it(),
            generation: after,
        },
        // By the generation of the instance it is about: it is the source's own.
        Act::Release => Verb::Release {
            migration: id(),
            container: it(),
            generation: before,
            after: match migration.options.mode {
                MigrationMode::PostCopy => Some(PostCopyTo {
                    to: migration.to.clone(),
                    address: state.hosts.get(&migration.to)?.address.clone(),
                    max_bandwidth: migration.options.max_bandwidth,
                }),
                _ => None,
            },
        },
        Act::Discard => Verb::Discard {
            migration: id(),
            container: it(),
            // Fences what the destination has, if it went back after the commit.
            generation: migration.recovered.map(|_| owner),
        },
        Act::Thaw => Verb::Thaw {
            migration: id(),
            container: it(),
            generation: owner,
        },
    };
    Some(Ask {
        act,
        host: host.clone(),
        command: AgentCommand {
            operation: operation(&migration.id, act, attempt),
            verb,
        },
    })
}
