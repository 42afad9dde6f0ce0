//! Containers that are hard to move ahead of their freeze: one whose own filter forbids what
//! tracking needs, and one of thirty processes.

use std::fs;

use godwit_tests::{
    mover::{Mover, sent},
    testbed::{Cluster, Options},
};

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
}

/// Moves it with its memory ahead, and insists that its writes were tracked: what was sent once
/// and not written again was not sent again.
fn moves(cluster: &Cluster, mover: &Mover, to: u8) {
    let host = format!("h{to}");
    // The rounds are what counts here, not how long this machine needs for the freeze.
    let moved = cluster
        .json(&[
            "migrate",
            &mover.name,
            "--to",
            &host,
            "--mode",
            "precopy",
            "--max-downtime",
            "5s",
        ])
        .unwrap();
    let rounds = sent(&moved);
    println!(
        "{} to {host}: rounds {rounds:?}, freeze {} us",
        mover.name, moved["times"]["freeze_us"]
    );
    assert_eq!(moved["phase"], "done", "{moved}");
    assert!(rounds.len() > 1, "{moved}");
    assert!(rounds[1] < rounds[0] / 2, "not tracked: {rounds:?}");
}

#[test]
fn what_a_filter_forbids_its_container_is_not_forbidden_to_pre_copy() {
    let cluster = cluster();
    let options = ["--rss=64", "--rate=2", "--strict"];
    let mover = Mover::play(&cluster, "strict", 1, &[], &options).unwrap();
    let id = cluster.id("strict").unwrap();
    for to in [2, 1, 2] {
        moves(&cluster, &mover, to);
        assert_eq!(mover.verify(&cluster).unwrap(), 64 * 256);
        for pid in cluster.processes_of(&id).unwrap() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            assert!(
                status.contains("Seccomp:\t2"),
                "without its filter: {status}"
            );
        }
    }
    mover.dismiss(&cluster).unwrap();
    // At its end it tries once more what is forbidden, and checks what it holds.
    let stopped = cluster.json(&["stop", "-t", "60", "strict"]).unwrap();
    let log = cluster.logs("strict").unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{log}");
}

#[test]
fn thirty_processes_with_memory_of_their_own_and_copied_on_write_move_there_and_back() {
    let cluster = cluster();
    let options = ["--processes=30", "--rss=2", "--shared=4", "--rate=5"];
    let mover = Mover::play(&cluster, "thirty", 1, &[], &options).unwrap();
    let id = cluster.id("thirty").unwrap();
    for to in [2, 1] {
        moves(&cluster, &mover, to);
        assert_eq!(mover.verify(&cluster).unwrap(), 30 * 6 * 256);
        assert_eq!(cluster.processes_of(&id).unwrap().len(), 30);
    }
    mover.dismiss(&cluster).unwrap();
    let stopped = cluster.json(&["stop", "-t", "60", "thirty"]).unwrap();
    let log = cluster.logs("thirty").unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{log}");
}
