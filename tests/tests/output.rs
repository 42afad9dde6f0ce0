//! Output, file writes and the exit code belong to the container, not to the host.

use godwit_tests::testbed::{Cluster, Options};

fn numbers(cluster: &Cluster, container: &str) -> Vec<u64> {
    let log = cluster.logs(container).unwrap();
    log.lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn output_files_and_the_exit_code_move_with_the_container() {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let count = ["workload", "/bin/godwit-workload", "count"];
    cluster
        .ok(&[
            &["run", "-d", "--name", "count", "--host", "h1"],
            &count[..],
        ]
        .concat())
        .unwrap();
    let exit = ["workload", "/bin/godwit-workload", "exit", "42"];
    cluster
        .ok(&[&["run", "-d", "--name", "exit", "--host", "h1"], &exit[..]].concat())
        .unwrap();
    cluster
        .wait_for_log("exit", |text| text.contains("ready"))
        .unwrap();

    // The workload itself checks its file before every number.
    for to in [2, 1, 2] {
        let before = numbers(&cluster, "count").len();
        cluster.migrate("count", to).unwrap();
        cluster
            .wait_for_log("count", |text| text.lines().count() > before + 50)
            .unwrap();
    }
    let stopped = cluster.json(&["stop", "count"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{stopped}");
    let all = numbers(&cluster, "count");
    assert!(all.len() > 150, "{}", all.len());
    for (expected, number) in all.iter().enumerate() {
        assert_eq!(*number, expected as u64, "output has a gap or a repeat");
    }

    cluster.migrate("exit", 2).unwrap();
    let stopped = cluster.json(&["stop", "exit"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 42, "{stopped}");
    assert_eq!(cluster.logs("exit").unwrap(), "ready\n");
}
