//! What a command changes: the record before and after it, and what the instance then does.
//! Pure; the container's task stores and publishes what is answered here.

use godwit_types::{
    AgentCommand, FailureKind, InstanceState, Outcome, RestartPolicy, Signal, Verb,
};

use super::admission::is_fenced;
use crate::ledger::{Answer, Arrived, Life, Record, Role};

/// What the instance does once a command has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// As before.
    Same,
    Is(InstanceState),
    Gone,
    /// Only the runtime knows.
    Ask,
}

/// The record to store before the command is done. Without it, a container started just before
/// a crash would be nobody's. None: the command needs no intent.
pub fn begin(record: &Record, command: &AgentCommand) -> Option<Record> {
    let role = match &command.verb {
        Verb::Run {
            generation, spec, ..
        } => Role::Owner {
            generation: *generation,
            spec: spec.clone(),
            arrived: None,
        },
        Verb::Prepare {
            migration,
            generation,
            spec,
            from,
            ..
        } => Role::Incoming {
            generation: *generation,
            migration: migration.clone(),
            from: from.clone(),
            spec: spec.clone(),
        },
        Verb::Start {
            generation, spec, ..
        } => Role::Owner {
            generation: *generation,
            spec: spec.clone(),
            arrived: None,
        },
        verb => return life(record, verb),
    };
    let mut begun = record.clone();
    begun.life = Life::default();
    match &command.verb {
        Verb::Prepare { details, .. } => begun.life.details = (**details).clone(),
        Verb::Start { .. } => begun.life.details.last_exit = record.life.details.last_exit,
        _ => {}
    }
    begun.role = role;
    begun.begun = Some(command.operation.clone());
    raise(&mut begun, command);
    Some(begun)
}

/// What must be on the disk before it is done, so that no agent starts again what was stopped, nor
/// what another host may run by then. None: nothing is started again here anyway.
fn life(record: &Record, verb: &Verb) -> Option<Record> {
    let Role::Owner { spec, .. } = &record.role else {
        return None;
    };
    if spec.options.policy.restart == RestartPolicy::No {
        return None;
    }
    let mut begun = record.clone();
    match verb {
        Verb::Stop { .. } => begun.life.stopped = true,
        Verb::Signal { signal, .. } => {
            let own = spec.options.process.stop_signal.unwrap_or(Signal::TERM);
            begun.life.stopped |= *signal == Signal::KILL || *signal == own;
        }
        Verb::PreCopy { migration, .. } | Verb::Freeze { migration, .. } => {
            begun.life.leaving = Some(migration.clone());
        }
        _ => return None,
    }
    Some(begun)
}

/// The record to store once the command has ended.
pub fn conclude(record: &Record, command: &AgentCommand, answer: &Answer, now_ms: u64) -> Record {
    let mut after = record.clone();
    if changes_nothing(&command.verb) {
        return after;
    }
    raise(&mut after, command);
    match (&command.verb, answer) {
        // What they had begun was undone.
        (Verb::Run { .. } | Verb::Prepare { .. }, Err(_)) => {
            after.role = Role::None { since_ms: now_ms };
        }
        (Verb::Remove { .. } | Verb::Release { .. }, Ok(_)) => {
            if let Some(own) = record.generation() {
                after.left = after.left.max(Some(own));
                after.role = Role::None { since_ms: now_ms };
            }
        }
        (
            Verb::Discard {
                migration,
                generation,
                ..
            },
            Ok(_),
        ) => {
            let fenced = is_fenced(record, *generation);
            let awaited = matches!(
                &record.role,
                Role::Incoming { migration: own, .. } if own == migration
            );
            if fenced {
                after.left = after.left.max(record.generation());
            }
            if awaited || fenced {
                after.role = Role::None { since_ms: now_ms };
            }
        }
        (Verb::Start { .. } | Verb::Run { .. }, Ok(_)) => after.life.details.started_ms = now_ms,
        (Verb::Stop { .. }, Ok(_)) => {
            if let Role::Owner { spec, .. } = &record.role {
                after.life.stopped = spec.options.policy.restart != RestartPolicy::No;
            }
        }
        (Verb::Update { spec: new, .. }, Ok(_)) => {
            if let Role::Owner { spec, .. } = &mut after.role {
                spec.clone_from(new);
            }
        }
        (Verb::Resume { .. }, Ok(_)) => own(&mut after),
        // What is said next must be true for ever.
        (Verb::Resume { generation, .. }, Err(failure))
            if failure.kind == FailureKind::NeverResumed =>
        {
            after.never = after.never.max(Some(*generation));
        }
        // After a recovery the owner again, by a newer generation.
        (Verb::Thaw { generation, .. }, Ok(_)) => {
            after.life.leaving = None;
            if let Role::Owner {
                generation: own, ..
            } = &mut after.role
            {
                *own = (*own).max(*generation);
            }
        }
        _ => {}
    }
    if matches!(
        command.verb,
        Verb::Run { .. } | Verb::Prepare { .. } | Verb::Start { .. }
    ) {
        after.begun = None;
    }
    if answer.is_ok() || !must_succeed(&command.verb) {
        after.keep(command, answer);
    }
    after
}

/// The record of an instance that was found when the agent started. An incoming one that runs
/// was resumed, and the agent ended before it could write so: only a resume makes it run.
pub fn found(record: &Record, state: &InstanceState) -> Record {
    let mut after = record.clone();
    if matches!(
        state,
        InstanceState::Running { .. } | InstanceState::Paused { .. } | InstanceState::Exited { .. }
    ) {
        own(&mut after);
    }
    after
}

/// What the instance does after this answer. `after` is the record that was concluded.
pub fn state(after: &Record, verb: &Verb, answer: &Answer) -> After {
    let Ok(outcome) = answer else {
        return if changes_nothing(verb) {
            After::Same
        } else {
            After::Ask
        };
    };
    match (outcome, crate::container::admission::migration(verb)) {
        // It has ended already.
        (Outcome::Running { pid: 0 } | Outcome::Resumed { pid: 0, .. }, _) => After::Ask,
        (Outcome::Running { pid } | Outcome::Resumed { pid, .. }, _) => {
            After::Is(InstanceState::Running { pid: *pid })
        }
        (Outcome::Stopped { exit }, _) => After::Is(InstanceState::Exited { exit: *exit }),
        (Outcome::Frozen { .. }, Some(migration)) => After::Is(InstanceState::Frozen {
            migration: migration.clone(),
        }),
        (Outcome::Staged { .. }, Some(migration)) => After::Is(InstanceState::Staged {
            migration: migration.clone(),
        }),
        (Outcome::Released { .. }, _) if after.generation().is_none() => After::Gone,
        (Outcome::Done, migration) => match (verb, migration) {
            (Verb::Prepare { .. }, Some(migration)) => After::Is(InstanceState::Staged {
                migration: migration.clone(),
            }),
            (Verb::Remove { .. } | Verb::Release { .. } | Verb::Discard { .. }, _)
                if after.generation().is_none() =>
            {
                After::Gone
            }
            (Verb::Thaw { .. } | Verb::Pause { .. } | Verb::Unpause { .. }, _) => After::Ask,
            _ => After::Same,
        },
        _ => After::Same,
    }
}

/// Verbs that only look; they are done again when they are asked again.
pub fn changes_nothing(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::CheckSource { .. } | Verb::CheckDestination { .. } | Verb::Sample { .. }
    )
}

/// Successes whose record need not be on the disk before they are answered. They lie in the freeze,
/// and each write to the disk would make it longer by some milliseconds. After a crash the shim
/// says the same: what is frozen, staged or running; [`found`] turns that into a record. What
/// fences, the generation, was on the disk before: these verbs raise none.
pub fn may_wait(verb: &Verb, answer: &Answer) -> bool {
    answer.is_ok()
        && matches!(
            verb,
            Verb::Freeze { .. } | Verb::Transfer { .. } | Verb::Stage { .. } | Verb::Resume { .. }
        )
}

/// Successes that stand even where their record can't be written: the intent is on the disk, and the
/// next agent finds by it what this one has done. A failure would say that nothing was left.
pub fn is_intended(verb: &Verb, answer: &Answer) -> bool {
    answer.is_ok() && matches!(verb, Verb::Run { .. } | Verb::Start { .. })
}

/// Answers that may be given, and believed here, only once they are on the disk.
pub fn must_be_stored(answer: &Answer) -> bool {
    matches!(answer, Err(failure) if failure.kind == FailureKind::NeverResumed)
}

/// Verbs that the leader repeats until they succeed: a failure of theirs is answered and not
/// kept, so that the same operation, asked again, is tried again.
fn must_succeed(verb: &Verb) -> bool {
    matches!(
        verb,
        Verb::Stop { .. }
            | Verb::Remove { .. }
            | Verb::Resume { .. }
            | Verb::Discard { .. }
            | Verb::Thaw { .. }
            | Verb::Release { .. }
    )
}

fn raise(record: &mut Record, command: &AgentCommand) {
    if let Some(given) = command.verb.generation() {
        record.highest = record.highest.max(given);
    }
}

fn own(record: &mut Record) {
    if let Role::Incoming {
        generation,
        spec,
        migration,
        from,
    } = &record.role
    {
        record.role = Role::Owner {
            generation: *generation,
            spec: spec.clone(),
            arrived: Some(Arrived {
                migration: migration.clone(),
                from: from.clone(),
            }),
        };
    }
}
