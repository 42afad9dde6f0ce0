//! CRIU fails at the source or at the destination, by its own fault injection: the container runs
//! on where it was, with its connections, and nothing of it is left where it was to go.
//!
//! And the fast part of the fault matrix: each fault once, and each point of a migration. The whole
//! is `cargo xtask faults`.

use std::collections::BTreeSet;

use godwit_tests::{
    faults::{Fault, fast, play},
    scene::{Scene, host_of, last_migration},
    testbed::{Cluster, Options, on_host},
};

fn fault(host: u8, number: &str) -> (u8, String, String) {
    (host, "CRIU_FAULT".to_owned(), number.to_owned())
}

/// What is on a host once its daemons have made all that they make only once.
fn at_rest(cluster: &Cluster, host: u8) -> BTreeSet<String> {
    let (name, at) = (format!("warm-{host}"), format!("h{host}"));
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            &name,
            "--host",
            &at,
            "--network",
            "scene",
            "workload",
            "/bin/godwit-workload",
            "exit",
            "0",
        ])
        .unwrap();
    cluster.ok(&["rm", "-f", &name]).unwrap();
    on_host(cluster, host).unwrap()
}

/// Tries a move that must fail, and says what the cluster has to say about it.
fn fails(cluster: &Cluster, scene: &Scene, from: u8, to: u8, at: (&str, u8)) {
    let rest = at_rest(cluster, to);
    let text = cluster
        .refused(&["migrate", &scene.redis, "--to", &format!("h{to}")])
        .unwrap();
    for word in [
        format!("`{}` was not moved", scene.redis),
        format!("{}: host `h{}`: criu", at.0, at.1),
        "hint: `godwit host ls -v`".to_owned(),
        format!("runs on h{from} as before"),
    ] {
        assert!(text.contains(&word), "no `{word}` in: {text}");
    }
    let last = last_migration(cluster).unwrap();
    assert_eq!(last["phase"], "aborted", "{last}");
    assert_eq!(host_of(cluster, &scene.redis).unwrap(), format!("h{from}"));
    scene.goes_on(cluster).unwrap();
    let now = on_host(cluster, to).unwrap();
    let left: Vec<_> = now.difference(&rest).collect();
    assert!(left.is_empty(), "left on h{to}: {left:#?}");
}

#[test]
fn a_dump_that_fails_leaves_redis_and_its_connection_where_they_are() {
    // The fault is the shim's, from its start to its end: hence a Redis for each.
    let cluster = Cluster::start(Options {
        hosts: 4,
        members: 1,
        agent_env: vec![fault(1, "1"), fault(2, "3"), fault(3, "5")],
        ..Options::default()
    })
    .unwrap();
    Scene::prepare(&cluster).unwrap();
    for from in [1, 2, 3] {
        let scene = Scene::play(&cluster, from, 4).unwrap();
        fails(&cluster, &scene, from, 4, ("freeze", from));
        scene.finish(&cluster).unwrap();
    }
}

#[test]
fn a_restore_that_fails_leaves_redis_where_it_is_and_the_next_move_succeeds() {
    let cluster = Cluster::start(Options {
        hosts: 4,
        members: 1,
        agent_env: vec![fault(2, "2"), fault(3, "6")],
        ..Options::default()
    })
    .unwrap();
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 4).unwrap();
    fails(&cluster, &scene, 1, 2, ("stage", 2));
    fails(&cluster, &scene, 1, 3, ("stage", 3));
    cluster.migrate(&scene.redis, 4).unwrap();
    scene.goes_on(&cluster).unwrap();
    scene.finish(&cluster).unwrap();
}

/// Cells of the fast part, by their fault. Each test has a cluster of its own.
fn holds(chosen: impl Fn(&Fault) -> bool) {
    let cells: Vec<_> = fast()
        .into_iter()
        .filter(|(_, fault)| chosen(fault))
        .collect();
    assert!(!cells.is_empty());
    play(cells).unwrap().holds().unwrap();
}

#[test]
fn the_fast_matrix_holds_when_programs_are_killed() {
    holds(|fault| matches!(fault, Fault::Kill(..)));
}

#[test]
fn the_fast_matrix_holds_when_programs_stand_still_and_disks_are_full() {
    holds(|fault| matches!(fault, Fault::Stop(..) | Fault::Full(..)));
}

#[test]
fn the_fast_matrix_holds_when_links_are_cut() {
    holds(|fault| matches!(fault, Fault::Cut(..)));
}

#[test]
fn the_fast_matrix_holds_when_connections_commands_and_people_come_in_between() {
    holds(|fault| {
        matches!(
            fault,
            Fault::Reset | Fault::Twice(_) | Fault::Late(_) | Fault::User(_)
        )
    });
}
