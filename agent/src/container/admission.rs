//! May this command be done? Pure decisions over the ledger's record, no IO.
//!
//! Three questions, in this order: was it answered before (then the same answer again), is its
//! sender behind (then it is refused as stale), and does it fit what this host is to the
//! container. What the runtime alone can know, such as whether a running container can be
//! dumped, is not asked here.

use godwit_types::{
    AgentCommand, CommandFailure, Exit, FailureKind, Generation, InstanceState, MigrationId,
    Outcome, Verb,
};

use crate::ledger::{Answer, Record, Role};

/// As of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// What to do with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It was answered before.
    Again(Answer),
    /// What it asks for is so already; the answer is recorded as if it had been done now.
    Already(Outcome),
    Perform,
    /// Nothing changes and nothing is recorded.
    Refuse(CommandFailure),
}

/// What to do with a command that arrives while another one is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    /// The same operation: its answer comes when it is done.
    Join,
    /// It undoes what is being done: drop that, do this.
    Interrupt,
    Wait,
}

/// The migration that a verb belongs to.
pub fn migration(verb: &Verb) -> Option<&MigrationId> {
    match verb {
        Verb::Prepare { migration, .. }
        | Verb::PreCopy { migration, .. }
        | Verb::Freeze { migration, .. }
        | Verb::Transfer { migration, .. }
        | Verb::Stage { migration, .. }
        | Verb::Resume { migration, .. }
        | Verb::Discard { migration, .. }
        | Verb::Thaw { migration, .. }
        | Verb::Release { migration, .. } => Some(migration),
        Verb::Run { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::CheckSource { .. }
        | Verb::CheckDestination { .. }
        | Verb::Sample { .. }
        | Verb::RemoveNetwork { .. }
        | Verb::RemoveVolume { .. }
        | Verb::BringImage { .. }
        | Verb::Start { .. }
        | Verb::Pause { .. }
        | Verb::Unpause { .. }
        | Verb::Signal { .. }
        | Verb::Update { .. }
        | Verb::SyncNetwork { .. } => None,
    }
}

/// `known`: what the instance was last seen doing, None when there is none.
pub fn admit(record: &Record, known: Option<&InstanceState>, command: &AgentCommand) -> Admission {
    if let Some(answer) = record.answer(&command.operation) {
        return Admission::Again(answer);
    }
    let verb = &command.verb;
    if let Some(refusal) = renounced(record, verb) {
        return refusal;
    }
    if let Some(given) = verb.generation()
        && given < record.highest
    {
        return stale(format!(
            "generation {given} is behind {}: the sender no longer owns the container",
            record.highest
        ));
    }
    if let Some(refusal) = over(record, verb) {
        return refusal;
    }
    match verb {
        Verb::Run { generation, .. } => run(record, known, command, *generation),
        Verb::Stop { .. } => match (&record.role, known) {
            (Role::Owner { .. }, Some(InstanceState::Exited { exit })) => {
                Admission::Already(Outcome::Stopped { exit: *exit })
            }
            (Role::Owner { .. }, _) => Admission::Perform,
            // As with `Remove`. What is lost has stopped, and left no exit code.
            (Role::Incoming { generation, .. }, known)
                if verb.generation() == Some(*generation) && is_lost(known) =>
            {
                Admission::Already(Outcome::Stopped {
                    exit: Exit {
                        code: KILLED,
                        at_ms: 0,
                    },
                })
            }
            _ => not_owner(record),
        },
        Verb::Remove { .. } => match &record.role {
            Role::None { .. } => Admission::Already(Outcome::Done),
            Role::Owner { .. } => Admission::Perform,
            // Nobody has this generation before the commit: it came, was resumed, and is gone again,
            // and none of that could be written.
            Role::Incoming { generation, .. } if verb.generation() == Some(*generation) => {
                Admission::Perform
            }
            Role::Incoming { .. } => not_owner(record),
        },
        Verb::CheckSource { generation, .. } | Verb::Sample { generation, .. } => {
            owned(record, *generation)
        }
        Verb::CheckDestination { .. } => match &record.role {
            Role::None { .. } => Admission::Perform,
            role => wrong_state(format!("container is already here as {}", word(role))),
        },
        Verb::Prepare {
            migration,
            generation,
            ..
        } => prepare(record, migration, *generation),
        Verb::PreCopy { generation, .. } => match (owned(record, *generation), known) {
            (Admission::Perform, Some(InstanceState::Frozen { migration: held })) => {
                frozen_for(held)
            }
            (admission, _) => admission,
        },
        Verb::Freeze {
            migration,
            generation,
            ..
        } => match (owned(record, *generation), known) {
            (Admission::Perform, Some(InstanceState::Frozen { migration: held })) => {
                if held == migration {
                    Admission::Already(Outcome::Frozen { steps: Vec::new() })
                } else {
                    frozen_for(held)
                }
            }
            (admission, _) => admission,
        },
        Verb::Transfer {
            migration,
            generation,
            ..
        } => match (owned(record, *generation), known) {
            (Admission::Perform, Some(InstanceState::Frozen { migration: held }))
                if held != migration =>
            {
                frozen_for(held)
            }
            (admission, _) => admission,
        },
        Verb::Thaw {
            migration,
            generation,
            ..
        } => match (thawed(record, *generation), known) {
            // Nothing is held where nothing is; the leader asks until it hears so. Of one that has
            // ended there may be more: what pre-copy keeps, and packets that were held.
            (Admission::Perform, None) => Admission::Already(Outcome::Done),
            (_, None) if record.generation().is_none() => Admission::Already(Outcome::Done),
            // A late undo of another migration must not end the freeze of this one.
            (Admission::Perform, Some(InstanceState::Frozen { migration: held }))
                if held != migration =>
            {
                Admission::Already(Outcome::Done)
            }
            (admission, _) => admission,
        },
        Verb::Release { migration, .. } => match (&record.role, known) {
            (Role::None { .. }, _) => Admission::Already(Outcome::Done),
            (Role::Owner { .. }, Some(InstanceState::Frozen { migration: held }))
                if held != migration =>
            {
                frozen_for(held)
            }
            (Role::Owner { .. }, _) => Admission::Perform,
            (Role::Incoming { .. }, _) => not_owner(record),
        },
        Verb::Stage {
            migration,
            generation,
            ..
        } => incoming(record, migration, *generation),
        Verb::Resume {
            migration,
            generation,
            ..
        } => match &record.role {
            // Resumed before, and the answer was lost. One that runs may have its gate still shut.
            Role::Owner {
                generation: own, ..
            } if own == generation => match known {
                // Also one that was lost since: it has run, and the source's copy is of the past.
                Some(InstanceState::Exited { .. } | InstanceState::Lost { .. }) => {
                    Admission::Already(Outcome::Resumed {
                        pid: 0,
                        steps: Vec::new(),
                    })
                }
                _ => Admission::Perform,
            },
            _ => incoming(record, migration, *generation),
        },
        Verb::Discard {
            migration,
            generation,
            ..
        } => discard(record, migration, *generation),
        Verb::SyncNetwork { .. }
        | Verb::RemoveNetwork { .. }
        | Verb::RemoveVolume { .. }
        | Verb::BringImage { .. } => Admission::Refuse(CommandFailure::new(
            FailureKind::Internal,
            "a host's command is not a container's",
        )),
        Verb::Start { .. }
        | Verb::Pause { .. }
        | Verb::Unpause { .. }
        | Verb::Signal { .. }
        | Verb::Update { .. } => order(record, known, verb),
    }
}

/// What to do with `next` while `current` is being done.
pub fn meanwhile(
    record: &Record,
    known: Option<&InstanceState>,
    current: &AgentCommand,
    next: &AgentCommand,
) -> Meanwhile {
    if next.operation == current.operation {
        return Meanwhile::Join;
    }
    let undoes = matches!(
        (&current.verb, &next.verb),
        (
            Verb::PreCopy { .. } | Verb::Freeze { .. } | Verb::Transfer { .. },
            Verb::Thaw { .. }
        ) | (Verb::Stage { .. }, Verb::Discard { .. })
    ) && migration(&current.verb) == migration(&next.verb);
    // An undo that would be refused must not interrupt either. One of a container that has ended
    // has nothing to do, but what is being done shall end.
    let taken = || !matches!(admit(record, known, next), Admission::Refuse(_));
    if undoes && taken() {
        Meanwhile::Interrupt
    } else {
        Meanwhile::Wait
    }
}

/// After the end of a migration on this host nothing of it may begin again: such a command was
/// overtaken by its own undo.
fn over(record: &Record, verb: &Verb) -> Option<Admission> {
    let migration = migration(verb)?;
    if matches!(verb, Verb::Thaw { .. } | Verb::Discard { .. }) {
        return None;
    }
    let ends: &[&str] = match verb {
        // Asked twice, it does nothing the second time.
        Verb::Release { .. } => &["thaw"],
        _ => &["thaw", "discard", "release"],
    };
    let end = ends.iter().find(|end| record.succeeded(end, migration))?;
    Some(wrong_state(format!(
        "migration {migration} was ended here by {end}"
    )))
}

fn run(
    record: &Record,
    known: Option<&InstanceState>,
    command: &AgentCommand,
    generation: Generation,
) -> Admission {
    match &record.role {
        Role::None { .. } => arrives(record, generation),
        // The agent ended between the intent and the result of this very operation.
        Role::Owner { .. } if record.begun.as_ref() == Some(&command.operation) => match known {
            Some(InstanceState::Running { pid } | InstanceState::Paused { pid }) => {
                Admission::Already(Outcome::Running { pid: *pid })
            }
            // It ran and has ended: the report says how. It has no pid any more.
            Some(InstanceState::Exited { .. } | InstanceState::Restarting { .. }) => {
                Admission::Already(Outcome::Running { pid: 0 })
            }
            Some(InstanceState::Created | InstanceState::Lost { .. }) | None => Admission::Perform,
            Some(InstanceState::Frozen { .. } | InstanceState::Staged { .. }) => {
                wrong_state("container is held by a migration".to_owned())
            }
        },
        role => wrong_state(format!("container is already here as {}", word(role))),
    }
}

/// What is asked of an instance that is there, by its owner.
fn order(record: &Record, known: Option<&InstanceState>, verb: &Verb) -> Admission {
    let generation = verb.generation().unwrap_or(Generation(0));
    if is_lost_arrival(record, known, verb) {
        return Admission::Perform;
    }
    let owned = owned(record, generation);
    if owned != Admission::Perform {
        return owned;
    }
    let running = matches!(
        known,
        Some(InstanceState::Running { .. } | InstanceState::Paused { .. })
    );
    match (verb, known) {
        (_, Some(InstanceState::Frozen { .. } | InstanceState::Staged { .. })) => {
            wrong_state("container is held by a migration".to_owned())
        }
        (
            Verb::Start { .. },
            Some(InstanceState::Running { pid } | InstanceState::Paused { pid }),
        ) => Admission::Already(Outcome::Running { pid: *pid }),
        (Verb::Start { .. } | Verb::Update { .. }, _) => Admission::Perform,
        (Verb::Pause { .. }, Some(InstanceState::Paused { .. }))
        | (Verb::Unpause { .. }, Some(InstanceState::Running { .. })) => {
            Admission::Already(Outcome::Done)
        }
        _ if running => Admission::Perform,
        _ => wrong_state(format!(
            "container does not run, so there is nothing to {}",
            verb.name()
        )),
    }
}

/// It was resumed here, which its leader heard, and this host ended before that was on the disk. By
/// this generation nobody else may run it, and here it is no more.
fn is_lost_arrival(record: &Record, known: Option<&InstanceState>, verb: &Verb) -> bool {
    let Verb::Start { generation, .. } = verb else {
        return false;
    };
    let awaited = matches!(
        &record.role,
        Role::Incoming { generation: expected, .. } if expected == generation
    );
    let never = record.never.is_some_and(|never| never >= *generation);
    awaited && !never && matches!(known, Some(InstanceState::Lost { .. }))
}

fn prepare(record: &Record, migration: &MigrationId, generation: Generation) -> Admission {
    match &record.role {
        Role::None { .. } => arrives(record, generation),
        Role::Incoming {
            migration: own,
            generation: expected,
            ..
        } if own == migration && *expected == generation => Admission::Perform,
        role => wrong_state(format!("container is already here as {}", word(role))),
    }
}

/// A container that left comes back only with a higher generation than it left with.
fn arrives(record: &Record, generation: Generation) -> Admission {
    match record.left {
        Some(left) if generation <= left => stale(format!(
            "generation {generation}: the container left this host with {left}"
        )),
        _ => Admission::Perform,
    }
}

/// `fence`: by which generation the source owns the container again.
fn discard(record: &Record, migration: &MigrationId, fence: Option<Generation>) -> Admission {
    match &record.role {
        _ if is_fenced(record, fence) => Admission::Perform,
        Role::Incoming { migration: own, .. } if own == migration => Admission::Perform,
        Role::Owner { .. } if record.succeeded("resume", migration) => wrong_state(format!(
            "container was resumed here by migration {migration}"
        )),
        // Nothing of this migration is here.
        _ => Admission::Already(Outcome::Done),
    }
}

/// Whether what is here is older than the generation that ends it.
pub(super) fn is_fenced(record: &Record, fence: Option<Generation>) -> bool {
    fence > record.generation() && record.generation().is_some()
}

/// What this host has said that it never ran it must never run, nor take in again.
fn renounced(record: &Record, verb: &Verb) -> Option<Admission> {
    let (given, never) = (verb.generation()?, record.never?);
    if given > never {
        return None;
    }
    let text = format!("generation {given} was given up here without having run");
    match verb {
        Verb::Resume { .. } => Some(Admission::Refuse(CommandFailure::new(
            FailureKind::NeverResumed,
            text,
        ))),
        Verb::Run { .. } | Verb::Prepare { .. } | Verb::Stage { .. } => Some(stale(text)),
        _ => None,
    }
}

fn is_lost(known: Option<&InstanceState>) -> bool {
    matches!(known, None | Some(InstanceState::Lost { .. }))
}

/// As [`owned`]; after a recovery the frozen instance is the owner's by a newer generation.
fn thawed(record: &Record, generation: Generation) -> Admission {
    match &record.role {
        Role::Owner {
            generation: own, ..
        } if *own <= generation => Admission::Perform,
        _ => owned(record, generation),
    }
}

/// The instance here is the one of this generation, and this host is its owner.
fn owned(record: &Record, generation: Generation) -> Admission {
    match &record.role {
        Role::Owner {
            generation: own, ..
        } if *own == generation => Admission::Perform,
        Role::Owner {
            generation: own, ..
        } => wrong_state(format!("instance is of generation {own}, not {generation}")),
        _ => not_owner(record),
    }
}

fn incoming(record: &Record, migration: &MigrationId, generation: Generation) -> Admission {
    match &record.role {
        Role::Incoming {
            migration: own,
            generation: expected,
            ..
        } if own == migration && *expected == generation => Admission::Perform,
        Role::Incoming {
            migration: own,
            generation: expected,
            ..
        } => wrong_state(format!(
            "container is awaited by migration {own} with generation {expected}, not by \
             {migration} with {generation}"
        )),
        Role::Owner { .. } => wrong_state("container is owned here, not awaited".to_owned()),
        Role::None { .. } => not_owner(record),
    }
}

fn not_owner(record: &Record) -> Admission {
    match &record.role {
        Role::Incoming { migration, .. } => wrong_state(format!(
            "container is still on its way here by migration {migration}"
        )),
        _ => Admission::Refuse(CommandFailure::new(
            FailureKind::NotFound,
            format!(
                "no instance of container {} on this host",
                record.container.short()
            ),
        )),
    }
}

fn frozen_for(held: &MigrationId) -> Admission {
    wrong_state(format!("container is frozen for migration {held}"))
}

fn stale(message: String) -> Admission {
    Admission::Refuse(CommandFailure::new(FailureKind::Stale, message))
}

fn wrong_state(message: String) -> Admission {
    Admission::Refuse(CommandFailure::new(FailureKind::WrongState, message))
}

fn word(role: &Role) -> &'static str {
    match role {
        Role::None { .. } => "none",
        Role::Owner { .. } => "owner",
        Role::Incoming { .. } => "incoming",
    }
}
