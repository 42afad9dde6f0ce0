//! A corpus of Dockerfiles: those that are good are read, those that are bad are refused with a
//! line, and whatever becomes of either by small changes is read or refused.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use godwit_runtime::build::{parse, plan};
use proptest::prelude::*;

fn corpus(kind: &str) -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/dockerfiles")
        .join(kind);
    let mut found: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    found.sort();
    found
}

#[test]
fn good_ones_are_read_and_planned() {
    let good = corpus("good");
    assert!(good.len() >= 7);
    for (path, text) in good {
        let file = parse("Dockerfile", &text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        plan(&file, &BTreeMap::new(), None).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

#[test]
fn bad_ones_are_refused_with_their_line() {
    let bad = corpus("bad");
    assert!(bad.len() >= 15);
    for (path, text) in bad {
        let error = parse("Dockerfile", &text).expect_err(&path.display().to_string());
        assert!((1..=2).contains(&error.line), "{path:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Pieces of the corpus, cut, put together and changed.
    #[test]
    fn what_becomes_of_them_by_changes_is_read_or_refused(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<usize>(), any::<usize>()), 1..5),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..6),
    ) {
        let all: Vec<String> =
            corpus("good").into_iter().chain(corpus("bad")).map(|(_, text)| text).collect();
        let mut text: Vec<char> = Vec::new();
        for (which, from, length) in picks {
            let piece: Vec<char> = which.get(&all).chars().collect();
            let from = from % (piece.len() + 1);
            let length = length % (piece.len() - from + 1);
            text.extend(&piece[from..from + length]);
        }
        for (at, c) in bytes {
            if !text.is_empty() {
                let at = at.index(text.len());
                text[at] = c;
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(file) = parse("Dockerfile", &text) {
            let _ = plan(&file, &BTreeMap::new(), None);
        }
    }
}
