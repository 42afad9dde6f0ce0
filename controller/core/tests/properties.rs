//! Whatever the commands, and in whatever order: what must hold, holds, and every member ends
//! with the same state.

mod cluster;

use cluster::*;
use godwit_core::{Command, Migration, Record, State, apply, check, next, queue};
use godwit_types::{Exit, InstanceState, NetworkName, Phase};
use proptest::prelude::*;

fn any_command() -> impl Strategy<Value = Command> {
    let (h, c, m) = (1..4u8, 1..5u8, 1..4u8);
    let phase = prop::sample::select(Phase::ALL.to_vec());
    let state = prop_oneof![
        Just(None),
        Just(Some(InstanceState::Running { pid: 7 })),
        Just(Some(InstanceState::Exited {
            exit: Exit { code: 1, at_ms: 2 }
        })),
    ];
    let attached = prop::sample::select(vec![None, Some("default"), Some("small")]);
    prop_oneof![
        1 => h.clone().prop_map(seen),
        1 => Just(Command::CreateNetwork {
            name: NetworkName::new("small").unwrap(),
            subnet: Some("10.200.0.0/29".parse().unwrap()),
        }),
        2 => (c.clone(), h.clone(), attached).prop_map(|(c, h, n)| create(c, h, n)),
        4 => (h.clone(), c.clone(), 1..4u64, state)
            .prop_map(|(h, c, g, s)| report(h, c, g, s)),
        1 => c.clone().prop_map(|c| Command::BeginStop { container: container(c), grace_ms: 5 }),
        1 => c.clone().prop_map(|c| Command::CancelStop { container: container(c) }),
        1 => (c.clone(), any::<bool>())
            .prop_map(|(c, force)| Command::BeginRemove { container: container(c), force, volumes: force }),
        1 => c.clone().prop_map(|c| Command::Removed { container: container(c) }),
        1 => c.clone().prop_map(|c| Command::MarkFailed {
            container: container(c),
            reason: "x".into(),
        }),
        4 => (m.clone(), c, h).prop_map(|(m, c, h)| start(m, c, h)),
        12 => (m.clone(), phase).prop_map(|(m, to)| advance(m, to)),
        2 => m.clone().prop_map(|m| abort(m, "x")),
        3 => m.clone().prop_map(take_back),
        1 => m.clone().prop_map(uncleared),
        1 => m.clone().prop_map(|m| Command::Cleared { migration: migration(m) }),
        2 => (1..9u8, 1..9u8, 1..4u8).prop_map(|(m, c, h)| start_low(m, c, h)),
        1 => (0..3u32, 1..3u32, 1..4u32).prop_map(|(o, i, c)| limits(o, i, c)),
        1 => (1..4u8, prop::collection::btree_set((1..5u8).prop_map(host), 0..2))
            .prop_map(|(h, to)| Command::BeginDrain { host: host(h), to }),
        1 => (1..4u8).prop_map(activate),
        1 => (1..4u8, 1..5u8, any::<bool>()).prop_map(|(h, c, for_good)| Command::DrainFailed {
            host: host(h),
            container: container(c),
            reason: "x".into(),
            for_good,
        }),
    ]
}

/// Those that count against the limits.
fn under_way(state: &State) -> Vec<&Migration> {
    let counts = |m: &&Migration| !m.queued && m.phase != Phase::Aborting;
    state.active_migrations().filter(counts).collect()
}

/// Ends one migration that is under way, well or badly.
fn end_one(state: &mut State, well: bool) {
    let Some(id) = under_way(state).first().map(|m| m.id.clone()) else {
        return;
    };
    let write = |state: &mut State, to| {
        let (migration, record) = (id.clone(), Record::default());
        let command = Command::Advance {
            migration,
            to,
            record,
        };
        must(state, &[command]);
    };
    if !well {
        let (migration, error) = (id.clone(), "x".to_owned());
        let failure = None;
        must(
            state,
            &[Command::Abort {
                migration,
                error,
                failure,
            }],
        );
        write(state, Phase::Aborted);
        return;
    }
    let mut phase = state.migrations[&id].phase;
    while let Some(row) = next(phase) {
        write(state, row.phase);
        phase = row.phase;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn however_many_are_asked_for_the_limits_hold_and_every_one_has_its_turn(
        moves in prop::collection::vec((1..4u8, 1..4u8), 1..40),
        out in 1..4u32, into in 1..4u32, all in 1..6u32,
        well in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut state = cluster();
        apply(&mut state, &limits(out, into, all)).unwrap();
        let mut asked = 0;
        for (at, (from, to)) in (10u8..).zip(&moves) {
            must(&mut state, &[create(at, *from, None), running(*from, at, 1)]);
            asked += usize::from(apply(&mut state, &start(at, at, *to)).is_ok());
        }
        let most = |count: usize, limit: u32| count <= limit as usize;
        let mut ended = 0;
        loop {
            let now = under_way(&state);
            prop_assert!(most(now.len(), all));
            for host in (1..4u8).map(host) {
                prop_assert!(most(now.iter().filter(|m| m.from == host).count(), out));
                prop_assert!(most(now.iter().filter(|m| m.to == host).count(), into));
            }
            if now.is_empty() {
                break;
            }
            end_one(&mut state, well[ended % well.len()]);
            ended += 1;
        }
        prop_assert_eq!((ended, queue(&state).len()), (asked, 0));
    }

    #[test]
    fn a_host_that_is_to_be_left_never_has_more_than_it_had(
        commands in prop::collection::vec(any_command(), 1..120),
    ) {
        let mut state = cluster();
        must(&mut state, &[create(2, 1, None), running(1, 2, 1), start(9, 2, 3), drain(3)]);
        // What was under way to it still comes.
        let mut most = 1;
        for command in &commands {
            if matches!(command, Command::EndDrain { .. }) {
                continue;
            }
            let _ = apply(&mut state, command);
            let there = state.owned_by(&host(3)).count();
            prop_assert!(there <= most, "{command:?}");
            let coming = state.active_migrations().filter(|m| m.to == host(3));
            let coming = coming.filter(|m| !m.phase.is_committed()).count();
            prop_assert!(there + coming <= most);
            most = there + coming;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // `apply` itself checks the invariants between every two states of a debug build.
    #[test]
    fn no_sequence_breaks_an_invariant(commands in prop::collection::vec(any_command(), 1..120)) {
        let mut one = cluster();
        let mut other = cluster();
        for command in &commands {
            let before = one.clone();
            let result = apply(&mut one, command);
            prop_assert_eq!(check(&before, &one), Ok(()));
            let json = serde_json::to_vec(command).unwrap();
            let again: Command = serde_json::from_slice(&json).unwrap();
            prop_assert_eq!(apply(&mut other, &again), result);
        }
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(State::from_json(&one.to_json()).unwrap(), one);
    }
}
