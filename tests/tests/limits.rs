//! Limits hold on every host alike.

use std::{collections::BTreeMap, fs};

use godwit_tests::testbed::{Cluster, Options, cgroups};

const FILES: [&str; 16] = [
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.max",
    "cpu.shares",
    "pids.max",
    "memory.soft_limit_in_bytes",
    "memory.low",
    "memory.swap.max",
    "cpu.weight",
    "cpuset.cpus",
    "blkio.weight",
    "blkio.throttle.read_bps_device",
    "io.max",
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

fn run_busybox(cluster: &Cluster, name: &str, options: &[&str], script: &str) {
    let mut arguments = vec!["run", "-d", "--name", name, "--host", "h1"];
    arguments.extend(options);
    arguments.extend(["busybox", "sh", "-c", script]);
    cluster.ok(&arguments).unwrap();
}

#[test]
fn limits_change_while_it_runs_and_are_the_same_after_a_move() {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    let options = [
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
        "--pids-limit",
        "20",
    ];
    run_busybox(
        &cluster,
        "grown",
        &options,
        "while true; do sleep 0.1; done",
    );
    let id = cluster.id("grown").unwrap();
    let first = limits(&cluster, "h1", &id);
    let has = |found: &BTreeMap<String, String>, values: &[&str]| {
        for value in values {
            assert!(found.values().any(|v| v == value), "no {value}: {found:?}");
        }
    };
    has(&first, &["67108864", "33554432", "0", "20"]);
    // More, less, and none.
    let update = [
        "update",
        "-m",
        "128m",
        "--memory-swap",
        "256m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "30",
        "grown",
    ];
    cluster.ok(&update).unwrap();
    let second = limits(&cluster, "h1", &id);
    has(&second, &["134217728", "33554432", "30"]);
    cluster.migrate("grown", 2).unwrap();
    assert_eq!(limits(&cluster, "h2", &id), second);
    cluster
        .ok(&[
            "update",
            "-m",
            "48m",
            "--memory-swap",
            "-1",
            "--cpus",
            "0",
            "grown",
        ])
        .unwrap();
    let third = limits(&cluster, "h2", &id);
    has(&third, &["50331648"]);
    cluster.migrate("grown", 1).unwrap();
    assert_eq!(limits(&cluster, "h1", &id), third);
    for (bad, word) in [
        (&["--memory", "1m"][..], "--memory"),
        (&["--cpuset-cpus", "4000"], "4000"),
        (&["--cpu-shares", "1"], "--cpu-shares"),
        (&["--restart", "x"], "x"),
        (&[], "nothing to update"),
    ] {
        let mut arguments = vec!["update"];
        arguments.extend(bad);
        arguments.push("grown");
        let text = cluster.refused(&arguments).unwrap();
        assert!(text.contains(word), "{bad:?}: {text}");
    }
    assert_eq!(
        limits(&cluster, "h1", &id),
        third,
        "a refusal changes nothing"
    );
}

#[test]
fn what_the_kernel_kills_for_want_of_memory_is_said_to_be_so_after_a_move_too() {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    let script = "trap 'exec tail /dev/zero' USR1; echo ready; while true; do sleep 0.05; done";
    run_busybox(
        &cluster,
        "greedy",
        &["-m", "16m", "--memory-swap", "16m"],
        script,
    );
    cluster
        .wait_for_log("greedy", |text| text.contains("ready"))
        .unwrap();
    cluster.migrate("greedy", 2).unwrap();
    cluster.ok(&["kill", "-s", "USR1", "greedy"]).unwrap();
    assert_eq!(cluster.ok(&["wait", "greedy"]).unwrap(), "137");
    let view = cluster.json(&["inspect", "greedy"]).unwrap();
    assert_eq!(view["details"]["oom_killed"], true, "{view}");
    let ps = cluster.ok(&["ps", "-a"]).unwrap();
    assert!(ps.contains("out of memory"), "{ps}");
    // One that was killed otherwise is not.
    run_busybox(
        &cluster,
        "modest",
        &["-m", "16m"],
        "while true; do sleep 0.05; done",
    );
    cluster.ok(&["kill", "modest"]).unwrap();
    assert_eq!(cluster.ok(&["wait", "modest"]).unwrap(), "137");
    let view = cluster.json(&["inspect", "modest"]).unwrap();
    assert_eq!(view["details"]["oom_killed"], false, "{view}");
}

#[test]
fn what_a_kernel_can_not_limit_is_a_warning_by_name() {
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    let weighted = cgroups::roots().iter().any(|root| {
        root.join(cluster.cgroup()).join("blkio.weight").exists()
            || root.join(cluster.cgroup()).join("io.weight").exists()
    });
    let run = [
        "run",
        "--blkio-weight",
        "500",
        "--name",
        "w",
        "busybox",
        "true",
    ];
    let output = cluster.output(&run).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(
        text.contains("warning: `--blkio-weight`"),
        !weighted,
        "{text}"
    );
}
