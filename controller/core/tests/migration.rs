//! Migrations over the pure state: the way there, and every way back.

mod cluster;

use cluster::*;
use godwit_core::{
    Act, Applied, Command, Memory, Step, apply, find_network, next_step, operation, table,
};
use godwit_types::{Generation, Need, Phase, Refusal, Status, Verb};

const FORWARD: [Phase; 9] = [
    Phase::Preflight,
    Phase::Reserved,
    Phase::PreCopy,
    Phase::Frozen,
    Phase::Transferred,
    Phase::Staged,
    Phase::Committed,
    Phase::Resumed,
    Phase::Done,
];

#[test]
fn the_steps_lead_to_the_other_host() {
    let mut state = cluster();
    must(&mut state, &[start(1, 1, 2)]);
    let mut memory = Memory::default();
    let mut asked = Vec::new();
    loop {
        let migration = state.migrations[&migration(1)].clone();
        let reached = match next_step(&state, &migration, &memory) {
            Step::Ask { ask, reaches } => {
                asked.push(format!("{} {}", ask.host, ask.command.verb.name()));
                memory.need = Some(Need {
                    disk: 64,
                    memory: 128,
                });
                if let Verb::CheckDestination { need, memory, .. } = ask.command.verb {
                    assert_eq!((need, memory), (64, 128));
                }
                let Some(reached) = reaches else { continue };
                reached
            }
            Step::Commit => Phase::Committed,
            Step::Finished => break,
            other => panic!("{other:?}"),
        };
        must(&mut state, &[advance(1, reached)]);
    }
    assert_eq!(
        asked,
        [
            "h1 check-source",
            "h2 check-destination",
            "h2 prepare",
            "h1 pre-copy",
            "h1 freeze",
            "h1 transfer",
            "h2 stage",
            "h2 resume",
            "h1 release"
        ]
    );
    let moved = &state.containers[&container(1)];
    assert_eq!((&moved.host, moved.generation), (&host(2), Generation(2)));
    assert_eq!((&moved.status, &moved.migration), (&Status::Running, &None));
    let times = &state.migrations[&migration(1)].times;
    assert_eq!((times.bytes, times.predicted_freeze_us), (9 * 7, 5));
    assert_eq!(state.migrations[&migration(1)].rounds, [round(1)]);
    let steps: Vec<_> = times.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(steps, FORWARD.map(|phase| phase.as_str()));
}

#[test]
fn a_failure_at_every_phase_leaves_the_owner_as_it_was() {
    for reached in 0..=6 {
        let mut state = cluster();
        let before = state.containers[&container(1)].clone();
        let version = find_network(&state, "default").unwrap().version;
        must(&mut state, &[start(1, 1, 2)]);
        for phase in &FORWARD[..reached] {
            must(&mut state, &[advance(1, *phase)]);
        }
        must(&mut state, &[abort(1, "the cable")]);
        assert_eq!(
            apply(&mut state, &abort(1, "again")),
            Ok(Applied::Unchanged)
        );
        let aborting = state.migrations[&migration(1)].clone();
        assert_eq!(aborting.error.as_deref(), Some("the cable"));
        let Step::Undo(asks) = next_step(&state, &aborting, &Memory::default()) else {
            panic!("an abort is undone");
        };
        let undo: Vec<_> = asks.iter().map(|a| (&a.host, a.act)).collect();
        assert_eq!(undo, [(&host(2), Act::Discard), (&host(1), Act::Thaw)]);
        // No way leads from here to a commit.
        for phase in FORWARD {
            assert!(matches!(
                refused(&mut state, &advance(1, phase)),
                Refusal::WrongPhase { .. }
            ));
        }
        must(&mut state, &[advance(1, Phase::Aborted)]);
        assert_eq!(state.containers[&container(1)], before);
        assert_eq!(find_network(&state, "default").unwrap().version, version);
        // A good one may follow.
        must(&mut state, &[start(2, 1, 3)]);
    }
}

#[test]
fn after_the_commit_there_is_no_abort() {
    let mut state = cluster();
    must(&mut state, &[start(1, 1, 2)]);
    for (at, phase) in FORWARD.into_iter().enumerate() {
        must(&mut state, &[advance(1, phase)]);
        assert_eq!(
            apply(&mut state, &advance(1, phase)),
            Ok(Applied::Unchanged)
        );
        if phase.is_committed() {
            assert_eq!(
                refused(&mut state, &abort(1, "late")),
                Refusal::PastCommit {
                    migration: migration(1)
                }
            );
        }
        // Leaving out a phase is refused.
        if let Some(far) = FORWARD.get(at + 2) {
            refused(&mut state, &advance(1, *far));
        }
    }
}

#[test]
fn the_commit_moves_the_endpoint() {
    let mut state = cluster();
    let before = table(&state, find_network(&state, "default").unwrap());
    assert_eq!(before.endpoints[0].host, host(1));
    must(&mut state, &[start(1, 1, 2)]);
    for phase in &FORWARD[..7] {
        must(&mut state, &[advance(1, *phase)]);
    }
    let after = table(&state, find_network(&state, "default").unwrap());
    assert_eq!(after.endpoints[0].host, host(2));
    assert_eq!(after.endpoints[0].address, before.endpoints[0].address);
    assert!(after.version > before.version);
}

#[test]
fn what_must_not_start_is_refused() {
    let mut state = cluster();
    assert!(matches!(
        refused(&mut state, &start(1, 1, 1)),
        Refusal::AlreadyThere { .. }
    ));
    assert!(matches!(
        refused(&mut state, &start(1, 9, 2)),
        Refusal::UnknownContainer { .. }
    ));
    assert!(matches!(
        refused(&mut state, &start(1, 1, 9)),
        Refusal::UnknownHost { .. }
    ));
    must(&mut state, &[create(2, 1, None)]);
    assert!(matches!(
        refused(&mut state, &start(1, 2, 2)),
        Refusal::NotRunning { .. }
    ));
    must(&mut state, &[start(1, 1, 2)]);
    assert_eq!(apply(&mut state, &start(1, 1, 2)), Ok(Applied::Unchanged));
    let id = container(1);
    for command in [
        start(2, 1, 3),
        Command::BeginStop {
            container: id.clone(),
            grace_ms: 1,
        },
        Command::BeginRemove {
            container: id.clone(),
            force: true,
            volumes: false,
        },
        Command::Removed { container: id },
    ] {
        let refusal = refused(&mut state, &command);
        assert!(matches!(refusal, Refusal::Migrating { .. }), "{refusal:?}");
    }
}

#[test]
fn both_sides_are_told_how_the_memory_moves() {
    let mut state = cluster();
    must(&mut state, &[start(1, 1, 2)]);
    let memory = Memory {
        need: Some(Need::default()),
        ..Memory::default()
    };
    let mut told = Vec::new();
    for phase in FORWARD {
        if let Step::Ask { ask, .. } =
            next_step(&state, &state.migrations[&migration(1)].clone(), &memory)
            && let Verb::Prepare { options, .. }
            | Verb::PreCopy { options, .. }
            | Verb::Freeze { options, .. } = ask.command.verb
        {
            told.push((ask.act, ask.host, options));
        }
        must(&mut state, &[advance(1, phase)]);
    }
    let expected = [
        (Act::Prepare, host(2), options()),
        (Act::PreCopy, host(1), options()),
        (Act::Freeze, host(1), options()),
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_old_owner_is_not_heard() {
    let mut state = cluster();
    must(&mut state, &[start(1, 1, 2)]);
    for phase in FORWARD {
        must(&mut state, &[advance(1, phase)]);
    }
    for late in [
        report(1, 1, 1, None),
        running(1, 1, 1),
        running(1, 1, 2),
        running(2, 1, 1),
    ] {
        assert_eq!(apply(&mut state, &late), Ok(Applied::Unchanged));
    }
    must(&mut state, &[running(2, 1, 2)]);
}

#[test]
fn every_leader_finds_the_same_operation_id() {
    let id = operation(&migration(0xab), Act::Freeze, 1);
    assert_eq!(id.as_str(), "abababababababab0000000400000001");
}
