//! The simulation itself: it holds, it repeats itself, and it can fail.

use godwit_sim::{Bug, simulate};

/// How many seeds it may take to find a mistake that was put in.
const ENOUGH: u64 = 400;

#[test]
fn every_rule_holds_for_the_first_seeds() {
    let mut migrations = 0;
    for seed in 0..300 {
        let run = simulate(seed, None, false);
        assert_eq!(run.broken, None, "seed {seed}");
        migrations += run.migrations;
    }
    assert!(migrations > 300, "only {migrations} migrations were tried");
}

#[test]
fn a_seed_is_one_run() {
    let mut hashes = Vec::new();
    for seed in [1, 17, 4711] {
        let run = simulate(seed, None, false);
        assert_eq!(simulate(seed, None, false), run);
        assert!(run.events > 1000);
        hashes.push(run.hash);
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3, "different seeds are different runs");
}

/// The rule that the first seed breaks which finds this mistake.
fn found(bug: Bug) -> &'static str {
    (0..ENOUGH)
        .find_map(|seed| simulate(seed, Some(bug), false).broken)
        .unwrap_or_else(|| panic!("{} is not found in {ENOUGH} seeds", bug.as_str()))
        .rule
}

#[test]
fn an_agent_that_thaws_on_silence_is_found() {
    let rule = found(Bug::ThawOnSilence);
    assert!(
        ["one copy runs at most", "output never goes back"].contains(&rule),
        "{rule}"
    );
}

#[test]
fn a_leader_that_commits_before_staged_is_found() {
    assert_eq!(
        found(Bug::CommitBeforeStaged),
        "one copy is always recoverable"
    );
}

#[test]
fn the_other_mistakes_are_found() {
    let known = [Bug::ThawOnSilence, Bug::CommitBeforeStaged];
    for bug in Bug::ALL.into_iter().filter(|bug| !known.contains(bug)) {
        found(bug);
    }
}
