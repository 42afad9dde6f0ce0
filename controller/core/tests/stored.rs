//! The stored form: what an earlier build wrote is read for ever.

mod cluster;

use cluster::*;
use godwit_core::{State, StateError};
use godwit_types::Phase;

const GOLDEN: &str = include_str!("golden/state-1.json");

fn sample() -> State {
    let mut state = cluster();
    must(&mut state, &[create(2, 3, None), start(1, 1, 2)]);
    for phase in [Phase::Preflight, Phase::Reserved, Phase::Frozen] {
        must(&mut state, &[advance(1, phase)]);
    }
    state
}

/// For a new format, `GODWIT_WRITE_GOLDEN=1 cargo test -p godwit-core --test stored` writes it anew.
#[test]
fn the_golden_file_is_read_and_written_as_it_is() {
    let state = sample();
    if std::env::var_os("GODWIT_WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/state-1.json");
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
fn a_newer_format_is_refused_before_it_is_read() {
    let newer = br#"{"version":2,"state":"something else"}"#;
    assert!(matches!(
        State::from_json(newer),
        Err(StateError::Version(2))
    ));
    assert!(matches!(State::from_json(b"{}"), Err(StateError::Json(_))));
}
