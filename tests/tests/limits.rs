//! Limits hold on every host alike.

use std::{collections::BTreeMap, fs};

use godwit_tests::testbed::{Cluster, Options, cgroups};

const FILES: [&str; 8] = [
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.max",
    "cpu.shares",
    "pids.max",
];

/// What the kernel has for a container on a host, in every hierarchy.
fn limits(cluster: &Cluster, host: &str, id: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for root in cgroups::roots() {
        for group in fs::read_dir(root.join(cluster.cgroup()).join(host))
            .into_iter()
            .flatten()
            .flatten()
            .filter(|group| id.starts_with(&*group.file_name().to_string_lossy()))
        {
            for file in FILES {
                if let Ok(text) = fs::read_to_string(group.path().join(file)) {
                    found.insert(file.to_owned(), text.trim().to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn memory_processors_and_processes_are_limited_alike_after_a_move() {
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
            "count",
            "--host",
            "h1",
            "--memory",
            "96m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "17",
            "workload",
            "/bin/godwit-workload",
            "count",
        ])
        .unwrap();
    let id = cluster.id("count").unwrap();
    cluster
        .wait_for_log("count", |text| text.lines().count() > 3)
        .unwrap();
    let before = limits(&cluster, "h1", &id);
    let values: Vec<&str> = before.values().map(String::as_str).collect();
    assert!(values.contains(&"100663296"), "{before:?}");
    assert!(values.contains(&"17"), "{before:?}");
    assert!(
        values.contains(&"50000") || values.contains(&"50000 100000"),
        "{before:?}"
    );
    cluster.migrate("count", 2).unwrap();
    assert_eq!(limits(&cluster, "h2", &id), before);
    assert_eq!(limits(&cluster, "h1", &id), BTreeMap::new(), "left behind");
    cluster.migrate("count", 1).unwrap();
    assert_eq!(limits(&cluster, "h1", &id), before);
}
