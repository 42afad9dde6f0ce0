//! Which migrations wait, and hosts that are to be left.

mod cluster;

use cluster::*;
use godwit_core::{
    Applied, Candidate, Command, Drain, Left, MAX_ATTEMPTS, State, apply, backoff, choose,
    drain_view, due, left_on, next_to_start, place, queue,
};
use godwit_types::{MigrationLimits, Phase, Priority, Refusal, Status};

/// Containers 2 to 9 run on host 1 beside 1, 10 and 11 on host 2.
fn crowd() -> State {
    let mut state = cluster();
    for number in 2..=11 {
        let on = if number < 10 { 1 } else { 2 };
        must(
            &mut state,
            &[create(number, on, None), running(on, number, 1)],
        );
    }
    state
}

fn waiting(state: &State) -> Vec<u8> {
    queue(state)
        .iter()
        .map(|m| m.id.as_str())
        .map(number)
        .collect()
}

fn number(id: &str) -> u8 {
    u8::from_str_radix(&id[..2], 16).unwrap()
}

fn under_way(state: &State) -> Vec<u8> {
    let started = state.active_migrations().filter(|m| !m.queued);
    started.map(|m| number(m.id.as_str())).collect()
}

fn finish(state: &mut State, id: u8) {
    let mut phase = state.migrations[&migration(id)].phase;
    while let Some(row) = godwit_core::next(phase) {
        must(state, &[advance(id, row.phase)]);
        phase = row.phase;
    }
}

fn with_priority(command: Command, wanted: Priority) -> Command {
    match command {
        Command::StartMigration {
            id,
            container,
            to,
            started_ms,
            options,
            drain,
            ..
        } => Command::StartMigration {
            id,
            container,
            to,
            started_ms,
            options,
            priority: wanted,
            drain,
        },
        other => other,
    }
}

#[test]
fn what_is_beyond_the_limits_waits_and_starts_when_there_is_room() {
    let mut state = crowd();
    assert_eq!(state.limits, MigrationLimits::default());
    for id in 1..=5 {
        must(&mut state, &[start(id, id, 2)]);
    }
    assert_eq!(under_way(&state), [1, 2]);
    assert_eq!(waiting(&state), [3, 4, 5]);
    assert_eq!(place(&state, &migration(4)), Some(2));
    assert_eq!(place(&state, &migration(1)), None);
    // Only those that have started are anybody's work.
    assert_eq!(due(&state).len(), 2);
    finish(&mut state, 1);
    assert_eq!(
        (under_way(&state), waiting(&state)),
        (vec![2, 3], vec![4, 5])
    );
    // One that is taken back makes room too, before it is undone.
    must(&mut state, &[abort(2, "x")]);
    assert_eq!(waiting(&state), [5]);
}

#[test]
fn each_limit_holds_by_itself() {
    for (limit, expected) in [
        (limits(1, 9, 9), vec![1]),
        (limits(9, 1, 9), vec![1, 2]),
        (limits(9, 9, 1), vec![1]),
        (limits(9, 9, 3), vec![1, 2, 3]),
    ] {
        let mut state = crowd();
        must(&mut state, &[limit]);
        for id in 1..=4 {
            must(&mut state, &[start(id, id, 2 + (id + 1) % 2)]);
        }
        assert_eq!(under_way(&state), expected);
    }
    let mut state = crowd();
    let refusal = refused(&mut state, &limits(1, 0, 1));
    assert!(refusal.to_string().contains("migrations-in"), "{refusal}");
}

#[test]
fn limits_that_are_raised_or_lowered_count_from_then_on() {
    let mut state = crowd();
    for id in 1..=4 {
        must(&mut state, &[start(id, id, 2)]);
    }
    must(&mut state, &[limits(3, 3, 8)]);
    assert_eq!(under_way(&state), [1, 2, 3]);
    must(&mut state, &[limits(1, 1, 1)]);
    finish(&mut state, 1);
    finish(&mut state, 2);
    assert_eq!((under_way(&state), waiting(&state)), (vec![3], vec![4]));
    finish(&mut state, 3);
    assert_eq!(under_way(&state), [4]);
}

#[test]
fn the_queue_goes_by_priority_and_then_by_time() {
    let mut state = crowd();
    must(&mut state, &[start(1, 1, 2), start(2, 2, 2)]);
    for (id, priority) in [
        (6, Priority::Low),
        (5, Priority::Normal),
        (4, Priority::Normal),
        (3, Priority::High),
    ] {
        must(&mut state, &[with_priority(start(id, id, 2), priority)]);
    }
    assert_eq!(waiting(&state), [3, 4, 5, 6]);
    // A host that is full does not keep the others idle.
    must(&mut state, &[with_priority(start(7, 10, 3), Priority::Low)]);
    assert_eq!(under_way(&state), [1, 2, 7]);
}

#[test]
fn one_that_waits_is_taken_out_at_once_and_leaves_its_container_alone() {
    let mut state = crowd();
    for id in 1..=3 {
        must(&mut state, &[start(id, id, 2)]);
    }
    must(&mut state, &[abort(3, "no")]);
    let gone = &state.migrations[&migration(3)];
    assert_eq!((gone.phase, gone.queued), (Phase::Aborted, false));
    assert_eq!(state.containers[&container(3)].migration, None);
    assert_eq!(apply(&mut state, &abort(3, "no")), Ok(Applied::Unchanged));
    // So is one whose container ends meanwhile.
    must(&mut state, &[start(4, 4, 2)]);
    let reason = "x".to_owned();
    let container = container(4);
    must(&mut state, &[Command::MarkFailed { container, reason }]);
    assert_eq!(state.migrations[&migration(4)].phase, Phase::Aborted);
}

#[test]
fn a_host_that_is_to_be_left_takes_nothing_and_is_chosen_for_nothing() {
    let mut state = crowd();
    for id in 1..=3 {
        must(&mut state, &[start(id, id, 2)]);
    }
    must(&mut state, &[drain(2)]);
    // What waited for it is taken back, what is under way ends as it would have.
    assert_eq!(state.migrations[&migration(3)].phase, Phase::Aborted);
    assert_eq!(under_way(&state), [1, 2]);
    let host_2 = Refusal::HostDraining { host: host(2) };
    assert_eq!(refused(&mut state, &create(20, 2, None)), host_2);
    assert_eq!(refused(&mut state, &start(5, 5, 2)), host_2);
    let all = [1, 2, 3].map(|number| Candidate {
        host: host(number),
        up: true,
        has_image: true,
    });
    assert_eq!(choose(&state, &all), Some(host(3)));
    assert_eq!(choose(&state, &all[1..2]), None);
    // An agent that says hello again is not the end of it.
    let hello = Command::HostSeen {
        name: host(2),
        address: "192.0.2.99:1".into(),
        underlay: [192, 0, 2, 99].into(),
    };
    must(&mut state, &[hello]);
    assert!(state.is_draining(&host(2)));
    must(&mut state, &[activate(2), create(20, 2, None)]);
    assert_eq!(apply(&mut state, &activate(2)), Ok(Applied::Unchanged));
}

#[test]
fn a_drain_may_name_the_hosts_to_go_to() {
    let mut state = crowd();
    let to = |hosts: &[u8]| Command::BeginDrain {
        host: host(1),
        to: hosts.iter().copied().map(host).collect(),
    };
    assert!(matches!(
        refused(&mut state, &to(&[1])),
        Refusal::Invalid { .. }
    ));
    assert!(matches!(
        refused(&mut state, &to(&[2, 9])),
        Refusal::UnknownHost { .. }
    ));
    must(&mut state, &[to(&[3])]);
    // Asked again without any it keeps them.
    assert_eq!(apply(&mut state, &drain(1)), Ok(Applied::Unchanged));
    let drain = state.hosts[&host(1)].drain.clone().unwrap();
    assert_eq!(drain.to, [host(3)].into());
    must(&mut state, &[cluster::drain(3)]);
    assert!(matches!(
        refused(&mut state, &to(&[3])),
        Refusal::HostDraining { .. }
    ));
}

#[test]
fn a_drain_counts_what_left_and_keeps_why_the_rest_could_not() {
    let mut state = crowd();
    must(&mut state, &[limits(2, 9, 9), drain(1)]);
    for id in 1..=3 {
        must(&mut state, &[start_low(id, id, 2)]);
    }
    finish(&mut state, 1);
    must(&mut state, &[abort(2, "no room")]);
    must(&mut state, &[advance(2, Phase::Aborted)]);
    // The other side of the limits: it was asked for by somebody else.
    must(&mut state, &[start(4, 4, 3)]);
    let view = drain_view(&state, &host(1), false);
    assert_eq!((view.moved, view.left.len(), view.is_over()), (1, 8, false));
    let of = |name: &str| view.left.iter().find(|l| l.name.as_str() == name).unwrap();
    let failed = of("c2");
    assert_eq!(failed.reason.as_deref(), Some("no room"));
    assert_eq!((failed.attempts, failed.stuck), (1, false));
    assert_eq!(of("c3").to, Some(host(2)));
    for _ in 1..MAX_ATTEMPTS {
        must(&mut state, &[note(2, false)]);
    }
    must(&mut state, &[note(5, true)]);
    let first = host(1);
    let stuck: Vec<_> = left_on(&state, &first)
        .filter(|(_, left)| *left == Left::GivenUp)
        .map(|(c, _)| c.spec.name.to_string())
        .collect();
    assert_eq!(stuck, ["c2", "c5"]);
    // Asked for anew, all of them are due again.
    must(&mut state, &[drain(1)]);
    let left: Vec<_> = left_on(&state, &first).collect();
    assert!(
        left.iter()
            .all(|(_, l)| matches!(l, Left::Due | Left::Moving))
    );
}

fn note(number: u8, for_good: bool) -> Command {
    Command::DrainFailed {
        host: host(1),
        container: container(number),
        reason: "nowhere to go".into(),
        for_good,
    }
}

#[test]
fn a_host_that_is_taken_back_keeps_what_waited_and_lets_go_what_was_under_way() {
    let mut state = crowd();
    must(&mut state, &[limits(2, 9, 9), drain(1)]);
    for id in 1..=4 {
        must(&mut state, &[start_low(id, id, 2)]);
    }
    must(&mut state, &[start(5, 5, 3)]);
    must(&mut state, &[activate(1)]);
    assert_eq!(under_way(&state), [1, 2]);
    // What somebody else asked for waits on.
    assert_eq!(waiting(&state), [5]);
    assert_eq!(state.containers[&container(3)].migration, None);
    assert!(drain_view(&state, &host(1), false).left.is_empty());
    // Nothing is kept of it for the next time.
    must(&mut state, &[drain(1)]);
    assert_eq!(state.hosts[&host(1)].drain, Some(Drain::default()));
}

#[test]
fn what_has_ended_can_not_be_moved_and_keeps_nobody() {
    let mut state = cluster();
    must(&mut state, &[drain(1)]);
    let reason = "x".to_owned();
    let container = container(1);
    must(&mut state, &[Command::MarkFailed { container, reason }]);
    let view = drain_view(&state, &host(1), false);
    assert!(view.is_over() && !view.is_drained());
    let reason = view.left[0].reason.as_deref();
    assert_eq!(reason, Some("container `c1` is not running (failed)"));
    assert!(matches!(view.left[0].status, Status::Failed { .. }));
}

#[test]
fn a_host_that_is_down_is_why_its_containers_stay() {
    let mut state = cluster();
    must(&mut state, &[drain(1)]);
    assert!(!drain_view(&state, &host(1), false).is_over());
    let view = drain_view(&state, &host(1), true);
    assert!(view.is_over());
    assert_eq!(view.left[0].reason.as_deref(), Some("host `h1` is down"));
}

#[test]
fn attempts_are_bounded_and_further_and_further_apart() {
    let pauses: Vec<_> = (0..=MAX_ATTEMPTS + 9).map(backoff).collect();
    assert!(pauses[0].is_zero());
    assert!(pauses[1..4].is_sorted_by(|a, b| a < b));
    assert_eq!(pauses[4], pauses[9]);
    assert_eq!(next_to_start(&cluster()), None);
}
