//! Several processes under two users, with shared memory, a Unix socket and a pipe between them.

use godwit_tests::testbed::{Cluster, Options};

fn last(text: &str) -> u64 {
    let line = text.lines().last().unwrap_or("0");
    line.parse()
        .unwrap_or_else(|_| panic!("the family ended: `{line}`"))
}

#[test]
fn a_family_of_processes_under_two_users_moves_twice_and_goes_on() {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "family",
            "--host",
            "h1",
            "workload",
            "/bin/godwit-workload",
            "family",
        ])
        .unwrap();
    cluster
        .wait_for_log("family", |text| text.lines().count() > 3)
        .unwrap();
    let id = cluster.id("family").unwrap();
    for to in [2, 1] {
        let before = last(&cluster.logs("family").unwrap());
        cluster.migrate("family", to).unwrap();
        cluster
            .wait_for_log("family", |text| last(text) > before + 1000)
            .unwrap();
        let mut users: Vec<String> = cluster
            .processes_of(&id)
            .unwrap()
            .iter()
            .map(|pid| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
            .map(|status| {
                let line = status.lines().find(|line| line.starts_with("Uid:"));
                line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
            })
            .collect();
        users.sort();
        assert_eq!(users, ["0", "1001", "1002"]);
    }
    let view = cluster.json(&["inspect", "family"]).unwrap();
    assert_eq!(view["status"]["state"], "running", "{view}");
}
