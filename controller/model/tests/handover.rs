//! The hand-over as built holds what it promises, and each mistake put into it is found.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Instant,
};

use godwit_model::{
    Bounds, Handover, Mutation, Step, World,
    properties::{
        A_COPY_IS_THERE, IT_ENDS, MUST_HOLD, NOTHING_FORGOTTEN, NOTHING_LEFT, ONE_COPY,
        RECOVERED_BY_ITSELF, RECOVERED_BY_OPERATOR,
    },
    steps::describe,
};
use stateright::{Checker, Model, Path};

/// One line a step.
fn lines(path: &Path<World, Step>) -> String {
    let steps = path.clone().into_vec();
    let said = steps
        .iter()
        .enumerate()
        .filter_map(|(number, (world, step))| {
            let step = step.as_ref()?;
            Some(format!("  {:>3}. {}\n", number + 1, describe(world, step)))
        });
    said.collect()
}

/// Explores all of it. Printed at once, since tests run side by side.
fn explore(title: &str, bounds: Bounds) {
    let began = Instant::now();
    let model = Handover {
        bounds,
        ..Handover::default()
    };
    let properties = model.properties();
    let checker = model.checker().spawn_bfs().join();
    let mut text = format!(
        "\n{title}: {bounds:?}\n  explored {} states, {} unique, depth {}, in {:.1} s\n",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    let mut broken = Vec::new();
    for property in properties {
        let found = checker.discovery(property.name);
        let wanted = !MUST_HOLD.contains(&property.name);
        let word = match (found.is_some(), wanted) {
            (true, true) => "seen",
            (false, false) => "holds",
            (false, true) => "NEVER",
            (true, false) => "BROKEN",
        };
        text += &format!("  {word:<7} {}\n", property.name);
        if found.is_some() != wanted {
            broken.push(property.name);
            text.extend(found.iter().map(lines));
        }
    }
    println!("{text}");
    assert!(broken.is_empty(), "{broken:?}");
}

/// The shortest path on which the property does not hold.
fn counterexample(title: &str, model: Handover) -> Vec<Step> {
    let began = Instant::now();
    let property = model.only.expect("one property is looked for");
    let checker = model.checker().spawn_bfs().join();
    let found = checker.discovery(property);
    let path = found.unwrap_or_else(|| panic!("{title}: `{property}` is never broken"));
    let shown = lines(&path);
    let steps = path.into_actions();
    println!(
        "\n{title}: `{property}` is broken\n  caught: a counterexample of {} steps, after {} unique \
         states, in {:.1} s\n{shown}",
        steps.len(),
        checker.unique_state_count(),
        began.elapsed().as_secs_f64(),
    );
    steps
}

fn mutated(mutation: Mutation, property: &'static str) -> Vec<Step> {
    let model = Handover {
        mutation: Some(mutation),
        only: Some(property),
        bounds: Bounds {
            faults: 1,
            ..Bounds::default()
        },
    };
    counterexample(&format!("mutation {mutation:?}"), model)
}

#[test]
fn the_hand_over_holds_what_it_promises() {
    explore("hand-over", Bounds::default().from_environment());
}

#[test]
fn a_second_migration_is_not_disturbed_by_what_is_left_of_the_first() {
    let bounds = Bounds {
        faults: 1,
        migrations: 2,
        ..Bounds::default()
    };
    explore("two migrations", bounds);
}

#[test]
fn memory_may_move_in_the_freeze_too() {
    let bounds = Bounds {
        pre_copy: false,
        faults: 1,
        ..Bounds::default()
    };
    explore("stop and copy", bounds);
}

/// On a circle a migration would neither end nor be found not to.
#[test]
fn no_path_goes_in_a_circle() {
    let model = Handover {
        bounds: Bounds {
            faults: 1,
            ..Bounds::default()
        },
        ..Handover::default()
    };
    let mark = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
    // Whether all that comes after it was seen.
    let mut seen = HashMap::new();
    let mut path: Vec<(u64, Vec<World>)> = Vec::new();
    let mut enter = model.init_states();
    loop {
        if let Some(world) = enter.pop() {
            let at = mark(&world);
            match seen.get(&at) {
                None => {
                    seen.insert(at, false);
                    path.push((at, model.next_states(&world)));
                }
                Some(true) => {}
                Some(false) => panic!("a circle of at most {} steps", path.len()),
            }
        }
        let Some((at, next)) = path.last_mut() else {
            break;
        };
        match next.pop() {
            Some(world) => enter.push(world),
            None => {
                seen.insert(*at, true);
                path.pop();
            }
        }
    }
    assert!(seen.len() > 10_000, "{} states", seen.len());
}

#[test]
fn a_commit_before_the_destination_is_staged_is_caught() {
    let steps = mutated(Mutation::CommitBeforeStaged, A_COPY_IS_THERE);
    assert_eq!(steps.last(), Some(&Step::Commit));
}

#[test]
fn a_source_that_thaws_on_silence_is_caught() {
    let steps = mutated(Mutation::SourceThawsOnSilence, ONE_COPY);
    assert!(steps.contains(&Step::ThawOnSilence(0)));
    let steps = mutated(Mutation::SourceThawsOnSilence, NOTHING_FORGOTTEN);
    assert!(steps.contains(&Step::ThawOnSilence(0)));
}

#[test]
fn a_source_that_is_used_again_after_the_commit_is_caught() {
    let steps = mutated(Mutation::SourceUsedAgainAfterCommit, ONE_COPY);
    assert!(steps.contains(&Step::UseSourceAgain));
}

#[test]
fn who_takes_back_on_silence_is_caught() {
    let steps = mutated(Mutation::TakenBackOnSilence, ONE_COPY);
    assert!(steps.contains(&Step::TakeBackOnSilence));
    let steps = mutated(Mutation::TakenBackOnSilence, NOTHING_FORGOTTEN);
    assert!(steps.contains(&Step::TakeBackOnSilence));
}

fn with_lost_shims(faults: u8, operator: bool) -> Bounds {
    Bounds {
        faults,
        lost_shims: true,
        operator,
        ..Bounds::default()
    }
}

/// A copy that is lost before it ran goes back by itself; one that ran is not missed by the source's.
#[test]
fn a_lost_shim_costs_its_copy_and_nothing_else() {
    let holds = [ONE_COPY, NOTHING_FORGOTTEN, NOTHING_LEFT, IT_ENDS];
    partly(
        "lost shims",
        with_lost_shims(1, false),
        &holds,
        &[RECOVERED_BY_ITSELF],
    );
}

/// Whatever else goes wrong besides.
#[test]
fn a_lost_shim_and_another_fault_cost_no_more() {
    let holds = [ONE_COPY, NOTHING_FORGOTTEN, NOTHING_LEFT, IT_ENDS];
    partly(
        "lost shims and more",
        with_lost_shims(2, false),
        &holds,
        &[RECOVERED_BY_ITSELF],
    );
}

/// Whose word is true: nothing runs there. What it answered before is lost, and nothing else.
#[test]
fn an_operator_recovers_what_nobody_can_tell() {
    let holds = [ONE_COPY, NOTHING_LEFT];
    let seen = [RECOVERED_BY_ITSELF, RECOVERED_BY_OPERATOR];
    partly("an operator", with_lost_shims(2, true), &holds, &seen);
}

/// Explores with what can break of its properties left out.
fn partly(title: &str, bounds: Bounds, holds: &[&'static str], seen: &[&'static str]) {
    for property in holds.iter().chain(seen) {
        let model = Handover {
            bounds,
            only: Some(property),
            mutation: None,
        };
        let began = Instant::now();
        let name = model.properties()[0].name;
        let checker = model.checker().spawn_bfs().join();
        let found = checker.discovery(name).map(|path| lines(&path));
        println!(
            "\n{title}: {} {name}: {} states, {} unique, in {:.1} s{}",
            if holds.contains(property) {
                "holds"
            } else {
                "seen"
            },
            checker.state_count(),
            checker.unique_state_count(),
            began.elapsed().as_secs_f64(),
            found
                .iter()
                .fold(String::new(), |text, path| text + "\n" + path),
        );
        assert_eq!(found.is_some(), seen.contains(property), "{property}");
    }
}
