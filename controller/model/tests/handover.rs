//! The hand-over as built holds what it promises, and each mistake put into it is found.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Instant,
};

use godwit_model::{
    Bounds, Handover, Mutation, Step, World,
    properties::{A_COPY_IS_THERE, IT_ENDS, MUST_HOLD, NOTHING_FORGOTTEN, NOTHING_LEFT, ONE_COPY},
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
fn a_lost_shim_costs_its_copy_and_nothing_else() {
    for property in [ONE_COPY, NOTHING_FORGOTTEN, NOTHING_LEFT] {
        let model = Handover {
            bounds: Bounds {
                faults: 1,
                lost_shims: true,
                ..Bounds::default()
            },
            only: Some(property),
            mutation: None,
        };
        let checker = model.checker().spawn_bfs().join();
        let broken = checker.discovery(property).map(|path| lines(&path));
        assert_eq!(broken, None, "{property}");
        println!("\nlost shims: holds {property}");
    }
}

/// What the protocol does not promise: after the commit there is one copy that may run, and if
/// its shim is lost before the resume, the migration waits for ever.
#[test]
fn a_staged_copy_that_is_lost_is_waited_for_in_vain() {
    let model = Handover {
        bounds: Bounds {
            faults: 1,
            lost_shims: true,
            ..Bounds::default()
        },
        only: Some(IT_ENDS),
        mutation: None,
    };
    let steps = counterexample("beyond the promise", model);
    assert!(steps.contains(&Step::Commit) && steps.contains(&Step::LoseShim(1)));
}
