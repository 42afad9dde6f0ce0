//! A container that writes to many files and to a large one all the while finds them as it left
//! them after moves, and little of them goes in the freeze.

use godwit_tests::testbed::{Cluster, Options, list};
use serde_json::Value;

/// The large file is 256 MiB: this is what a freeze may carry of everything.
const FREEZE_BYTES: u64 = 16 << 20;

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

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// The bytes of its rounds, and of its freeze.
fn bytes(migration: &Value) -> (u64, u64) {
    let rounds = list(&migration["rounds"]).iter();
    let rounds = rounds.map(|round| number(&round["sent_bytes"])).sum();
    (rounds, number(&migration["times"]["bytes"]) - rounds)
}

#[test]
fn a_container_that_writes_files_all_the_while_finds_them_after_two_moves() {
    let cluster = cluster();
    let mut run = vec!["run", "-d", "--name", "files", "--host", "h1"];
    run.extend(["workload", "/bin/godwit-workload", "files"]);
    cluster.ok(&run).unwrap();
    cluster
        .wait_for_log("files", |text| text.contains("ready"))
        .unwrap();
    for to in [2, 1] {
        let lines = cluster.logs("files").unwrap().lines().count();
        let moved = cluster.migrate("files", to).unwrap();
        let (rounds, freeze) = bytes(&moved);
        println!("to h{to}: {rounds} bytes in rounds, {freeze} in the freeze: {moved}");
        assert!(rounds > 256 << 20, "{moved}");
        assert!(freeze < FREEZE_BYTES, "{freeze}: {moved}");
        cluster
            .wait_for_log("files", |text| text.lines().count() > lines + 2)
            .unwrap();
    }
    let stopped = cluster.json(&["stop", "-t", "60", "files"]).unwrap();
    let log = cluster.logs("files").unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("ok "), "{log}");
}

#[test]
fn with_stop_and_copy_the_whole_layer_goes_in_the_freeze() {
    let cluster = cluster();
    let mut run = vec!["run", "-d", "--name", "files", "--host", "h1", "workload"];
    run.extend(["/bin/godwit-workload", "files", "--large=32", "--small=50"]);
    cluster.ok(&run).unwrap();
    cluster
        .wait_for_log("files", |text| text.contains("ready"))
        .unwrap();
    let moved = cluster.json(&["migrate", "files", "--to", "h2", "--mode", "stop"]);
    let moved = moved.unwrap();
    assert_eq!(moved["phase"], "done", "{moved}");
    let (rounds, freeze) = bytes(&moved);
    assert!(rounds == 0 && freeze > 32 << 20, "{moved}");
    let stopped = cluster.json(&["stop", "-t", "60", "files"]).unwrap();
    let log = cluster.logs("files").unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{log}");
}
