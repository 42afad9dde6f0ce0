//! The stored form: what an earlier build wrote is read for ever.

mod cluster;

use cluster::*;
use godwit_core::{Command, State, StateError};
use godwit_types::{MigrationLimits, MigrationMode, MigrationOptions, MigrationTimes, Phase};

const GOLDEN: &str = include_str!("golden/state-3.json");
/// Before recoveries and the queue.
const FORMAT_2: &str = include_str!("golden/state-2.json");
/// Before pre-copy.
const FORMAT_1: &str = include_str!("golden/state-1.json");

fn sample() -> State {
    let mut state = before_the_queue();
    let fails = Command::DrainFailed {
        host: host(1),
        container: container(3),
        reason: "nowhere to go".into(),
        for_good: false,
    };
    must(
        &mut state,
        &[
            create(3, 1, None),
            running(1, 3, 1),
            limits(1, 2, 4),
            drain(1),
            fails,
            start_low(2, 3, 3),
        ],
    );
    state
}

/// What is in the samples of older formats.
fn before_the_queue() -> State {
    let mut state = cluster();
    must(&mut state, &[create(2, 3, None), start(1, 1, 2)]);
    for phase in [
        Phase::Preflight,
        Phase::Reserved,
        Phase::PreCopy,
        Phase::Frozen,
    ] {
        must(&mut state, &[advance(1, phase)]);
    }
    state
}

/// And a third migration, recovered after its commit.
fn recovered() -> State {
    let mut state = sample();
    must(
        &mut state,
        &[create(4, 2, None), running(2, 4, 1), start(3, 4, 3)],
    );
    for phase in Phase::ALL.into_iter().take(8).skip(1) {
        must(&mut state, &[advance(3, phase)]);
    }
    must(&mut state, &[take_back(3)]);
    state
}

/// For a new format, `GODWIT_WRITE_GOLDEN=1 cargo test -p godwit-core --test stored` writes it anew.
#[test]
fn the_golden_file_is_read_and_written_as_it_is() {
    let state = recovered();
    if std::env::var_os("GODWIT_WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-3.json");
        let mut text = state.to_json();
        text.push(b'\n');
        std::fs::write(path, text).unwrap();
    }
    assert_eq!(State::from_json(GOLDEN.as_bytes()).unwrap(), state);
    assert_eq!(
        String::from_utf8(state.to_json()).unwrap(),
        GOLDEN.trim_end()
    );
}

#[test]
fn format_2_is_read_without_a_queue_or_a_drain_and_with_the_limits_that_are_the_default() {
    let read = State::from_json(FORMAT_2.as_bytes()).unwrap();
    assert_eq!(read, before_the_queue());
    assert_eq!(read.limits, MigrationLimits::default());
}

#[test]
fn format_1_is_read_and_its_migrations_stop_and_copy_to_their_end() {
    let read = State::from_json(FORMAT_1.as_bytes()).unwrap();
    let mut expected = before_the_queue();
    let moving = expected.migrations.get_mut(&migration(1)).unwrap();
    moving.options = MigrationOptions::stop();
    moving.rounds = Vec::new();
    moving.times = MigrationTimes {
        steps: moving.times.steps.clone(),
        ..MigrationTimes::default()
    };
    moving.times.steps.retain(|step| step.name != "precopy");
    assert_eq!(read, expected);
    // So does one that the log of such a build starts.
    let started = r#"{"kind":"start_migration","id":"0202020202020202","container":"CONTAINER",
        "to":"h2","started_ms":1}"#;
    let started = started.replace("CONTAINER", container(1).as_str());
    let Command::StartMigration { options, .. } = serde_json::from_str(&started).unwrap() else {
        panic!("{started}");
    };
    assert_eq!(options.mode, MigrationMode::Stop);
    let abort = r#"{"kind":"abort","migration":"0202020202020202","error":"x"}"#;
    assert!(serde_json::from_str::<Command>(abort).is_ok());
}

#[test]
fn a_newer_format_is_refused_before_it_is_read() {
    let newer = br#"{"version":4,"state":"something else"}"#;
    assert!(matches!(
        State::from_json(newer),
        Err(StateError::Version(4))
    ));
    assert!(matches!(State::from_json(b"{}"), Err(StateError::Json(_))));
}
