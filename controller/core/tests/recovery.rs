//! The way back after the commit.

mod cluster;

use cluster::*;
use godwit_core::{
    Act, Applied, Command, Job, Memory, RecoveredBy, State, Step, apply, clearing, due,
    find_network, next_step, table,
};
use godwit_types::{FailureKind, Generation, InstanceState, Phase, Refusal, Status, Verb};

/// Up to this phase.
fn moved_to(phase: Phase) -> State {
    let mut state = cluster();
    must(&mut state, &[start(1, 1, 2)]);
    for step in Phase::ALL.into_iter().skip(1) {
        if state.migrations[&migration(1)].phase == phase {
            break;
        }
        must(&mut state, &[advance(1, step)]);
    }
    assert_eq!(state.migrations[&migration(1)].phase, phase);
    state
}

#[test]
fn a_commit_that_was_never_resumed_goes_back_by_a_third_generation() {
    let mut state = moved_to(Phase::Committed);
    let lost = InstanceState::Lost {
        reason: "its shim ended".into(),
    };
    must(&mut state, &[report(2, 1, 2, Some(lost))]);
    must(&mut state, &[take_back(1)]);
    assert_eq!(apply(&mut state, &take_back(1)), Ok(Applied::Unchanged));
    let owned = &state.containers[&container(1)];
    assert_eq!((&owned.host, owned.generation), (&host(1), Generation(3)));
    assert_eq!((&owned.status, owned.pid), (&Status::Running, None));
    let endpoints = table(&state, find_network(&state, "default").unwrap()).endpoints;
    assert_eq!(endpoints[0].host, host(1));
    let back = state.migrations[&migration(1)].clone();
    assert_eq!(back.phase, Phase::Aborting);
    assert_eq!(back.failure, Some(FailureKind::NeverResumed));
    // What the destination still says is of the past.
    let late = running(2, 1, 2);
    assert_eq!(apply(&mut state, &late), Ok(Applied::Unchanged));
    let Step::Undo(asks) = next_step(&state, &back, &Memory::default()) else {
        panic!("both sides are undone");
    };
    let undo: Vec<_> = asks.iter().map(|ask| (&ask.host, ask.act)).collect();
    assert_eq!(undo, [(&host(2), Act::Discard), (&host(1), Act::Thaw)]);
    for ask in &asks {
        assert_eq!(ask.command.verb.generation(), Some(Generation(3)));
    }
    for forward in [Phase::Committed, Phase::Resumed, Phase::Done] {
        refused(&mut state, &advance(1, forward));
    }
    must(&mut state, &[advance(1, Phase::Aborted)]);
    assert!(due(&state).iter().all(|job| !matches!(job, Job::Clear(_))));
    // It can be moved again.
    must(&mut state, &[start(2, 1, 2)]);
    assert_eq!(state.migrations[&migration(2)].generation, Generation(3));
}

#[test]
fn only_a_commit_that_is_not_resumed_goes_back() {
    for phase in Phase::ALL {
        if phase == Phase::Committed || matches!(phase, Phase::Aborting | Phase::Aborted) {
            continue;
        }
        let mut state = moved_to(phase);
        for by in [RecoveredBy::Destination, RecoveredBy::Operator] {
            let command = Command::TakeBack {
                migration: migration(1),
                by,
                error: "x".into(),
            };
            let expected = Refusal::NotRecoverable {
                migration: migration(1),
                phase,
            };
            assert_eq!(refused(&mut state, &command), expected);
        }
    }
}

#[test]
fn a_destination_that_was_not_reached_is_told_once_it_is() {
    let mut state = moved_to(Phase::Committed);
    must(&mut state, &[take_back(1), uncleared(1)]);
    assert!(due(&state).contains(&Job::Clear(migration(1))));
    // The container is free meanwhile.
    let removal = Command::BeginRemove {
        container: container(1),
        force: true,
        volumes: false,
    };
    let removed = Command::Removed {
        container: container(1),
    };
    must(&mut state, &[removal, removed]);
    let ask = clearing(&state, &state.migrations[&migration(1)]).unwrap();
    assert_eq!(ask.host, host(2));
    assert!(matches!(
        ask.command.verb,
        Verb::Discard {
            generation: Some(Generation(3)),
            ..
        }
    ));
    let cleared = Command::Cleared {
        migration: migration(1),
    };
    must(&mut state, std::slice::from_ref(&cleared));
    assert_eq!(apply(&mut state, &cleared), Ok(Applied::Unchanged));
    assert!(!due(&state).contains(&Job::Clear(migration(1))));
}
