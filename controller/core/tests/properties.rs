//! Whatever the commands, and in whatever order: what must hold, holds, and every member ends
//! with the same state.

mod cluster;

use cluster::*;
use godwit_core::{Command, State, apply, check};
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
            .prop_map(|(c, force)| Command::BeginRemove { container: container(c), force }),
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
        1 => m.prop_map(|m| Command::Cleared { migration: migration(m) }),
    ]
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
