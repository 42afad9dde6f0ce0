//! Memory after moves: every page of programs that write, map, share and fork all the while is
//! what it should be.

use godwit_tests::testbed::{Cluster, Options};

const PORT: &str = "7000";

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

/// Starts the workload as a container on h1.
fn run(cluster: &Cluster, name: &str, workload: &[&str]) {
    let mut arguments = vec!["run", "-d", "--name", name, "--host", "h1"];
    arguments.extend(["workload", "/bin/godwit-workload"]);
    arguments.extend(workload);
    cluster.ok(&arguments).unwrap();
    cluster
        .wait_for_log(name, |text| text.contains("ready"))
        .unwrap();
}

/// The highest number a container has printed.
fn progress(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.parse().ok())
        .max()
        .unwrap_or(0)
}

/// Ends it; the last line it printed.
fn last_words(cluster: &Cluster, name: &str) -> String {
    let stopped = cluster.json(&["stop", "-t", "60", name]).unwrap();
    let log = cluster.logs(name).unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{log}");
    log.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn memory_that_is_rewritten_all_the_while_is_whole_after_three_moves() {
    let cluster = cluster();
    let memory = [
        "memory",
        "--rss=16",
        "--processes=4",
        "--rate=20",
        "--echo",
        PORT,
    ];
    run(&cluster, "memory", &memory);
    let inspected = cluster.json(&["inspect", "memory"]).unwrap();
    let address = inspected["spec"]["network"]["address"].as_str().unwrap();
    let target = format!("{address}:{PORT}");
    for to in [2, 1, 2] {
        cluster.migrate("memory", to).unwrap();
        let mut ask = vec!["run", "--host", "h1", "workload", "/bin/godwit-workload"];
        ask.extend(["witness", &target, "--ask=pause", "--ask=verify"]);
        ask.extend(["--ask=hash", "--ask=hash", "--ask=go"]);
        let said = cluster.ok(&ask).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..2], ["paused", "ok 16384"]);
        assert_eq!(lines[2], lines[3], "something writes that should not");
        assert_eq!(lines[4], "going");
    }
    assert_eq!(last_words(&cluster, "memory"), "ok 16384");
}

#[test]
fn memory_that_is_mapped_shared_and_copied_all_the_while_is_whole_after_three_moves() {
    let cluster = cluster();
    run(&cluster, "churn", &["churn"]);
    for to in [2, 1, 2] {
        let before = progress(&cluster.logs("churn").unwrap());
        cluster.migrate("churn", to).unwrap();
        // Enough that every kind of operation was done again.
        cluster
            .wait_for_log("churn", |text| {
                text.contains("bad") || progress(text) > before + 3000
            })
            .unwrap();
        let log = cluster.logs("churn").unwrap();
        assert!(!log.contains("bad"), "{log}");
    }
    let last = last_words(&cluster, "churn");
    assert!(last.starts_with("ok "), "{last}");
}
