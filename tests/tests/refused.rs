//! What can't be done is said before anything is stopped: which thing is meant, and what helps.

use std::{fs, process::Stdio};

use godwit_tests::{
    scene::{Scene, host_of},
    testbed::{Cluster, Options, PATIENCE, list, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Insists that an error names its object and its remedy.
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

/// The agent of a host, and who started it: that one stops and goes on with it.
fn agent(cluster: &Cluster, host: u8) -> Vec<Pid> {
    let agents = cluster.host(host).processes("godwit-agent").unwrap();
    let agent = *agents.first().unwrap();
    let status = fs::read_to_string(format!("/proc/{agent}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.unwrap().trim().parse().unwrap();
    vec![Pid::from_raw(agent), Pid::from_raw(parent)]
}

fn signal(pids: &[Pid], signal: Signal) {
    for pid in pids {
        kill(*pid, signal).unwrap();
    }
}

/// Starts a move to host 2, which does not answer for the moment, and meanwhile one to host 3.
/// Answers what was said about that. On a machine that is too busy to do both before host 2
/// counts as down, the first is aborted; then again.
fn second_at_the_same_time(cluster: &Cluster, container: &str) -> String {
    for _ in 0..5 {
        let before = list(&cluster.json(&["migration", "ls"]).unwrap()).len();
        let agent = agent(cluster, 2);
        signal(&agent, Signal::SIGSTOP);
        let mut first = cluster.godwit(&["migrate", container, "--to", "h2"]);
        let mut first = first.stderr(Stdio::null()).spawn().unwrap();
        let begun = wait_for("the first migration", PATIENCE, || {
            list(&cluster.json(&["migration", "ls"]).unwrap()).len() > before
        });
        let second = cluster.refused(&["migrate", container, "--to", "h3"]);
        signal(&agent, Signal::SIGCONT);
        let moved = first.wait().unwrap().success();
        begun.unwrap();
        if moved {
            return second.unwrap();
        }
        cluster.wait_for_hosts(3).unwrap();
    }
    panic!("the first migration was aborted every time");
}

#[test]
fn bad_requests_name_their_object_and_the_remedy_and_stop_nothing() {
    let mut cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("redis"))
        .unwrap();
    cluster.ok(&["network", "create", "scene"]).unwrap();
    // Host 3 gets what its clients need, and not what Redis needs.
    let archive = cluster.dir().join("workload.tar");
    godwit_tests::archive::write(&archive, "workload", &cluster.programs().workload).unwrap();
    cluster.load_image(&archive).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    let redis = scene.redis.as_str();

    // Unknown container, host, image.
    let refused = |arguments: &[&str]| cluster.refused(arguments).unwrap();
    says(
        &refused(&["migrate", "nobody", "--to", "h2"]),
        &["no container `nobody`", "hint: `godwit ps -a`"],
    );
    for verb in ["stop", "rm", "logs", "inspect"] {
        says(
            &refused(&[verb, "nobody"]),
            &["no container `nobody`", "hint:"],
        );
    }
    says(
        &refused(&["migrate", redis, "--to", "h9"]),
        &["no host `h9`", "hint: `godwit host ls`"],
    );
    says(
        &refused(&["run", "-d", "nothing-like-it"]),
        &["nothing-like-it", "hint: load it with `godwit image load"],
    );
    says(
        &refused(&["run", "-d", "--host", "h9", "redis"]),
        &["no host `h9`", "hint:"],
    );
    // Destination equal to source.
    says(
        &refused(&["migrate", redis, "--to", "h1"]),
        &[redis, "already on host `h1`"],
    );
    // A host without the image gets it: no reason against a move.
    let busybox = cluster.programs().image("busybox").display().to_string();
    cluster
        .ok(&["image", "load", "-i", &busybox, "--host", "h1"])
        .unwrap();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "count",
            "busybox",
            "sh",
            "-c",
            "sleep 1000000",
        ])
        .unwrap();
    cluster.migrate("count", 2).unwrap();
    assert_eq!(host_of(&cluster, "count").unwrap(), "h2");

    // A second migration while the first is under way.
    let text = second_at_the_same_time(&cluster, redis);
    says(
        &text,
        &[
            redis,
            "is being moved by migration",
            "hint: `godwit migration inspect",
        ],
    );
    assert_eq!(
        host_of(&cluster, redis).unwrap(),
        "h2",
        "the first goes its way"
    );
    cluster.migrate(redis, 1).unwrap();

    // Destination down.
    cluster.kill(2, "godwit-agent").unwrap();
    wait_for("host 2 down", PATIENCE, || {
        let hosts = cluster.json(&["host", "ls"]).unwrap();
        list(&hosts)
            .iter()
            .any(|h| h["name"] == "h2" && h["up"] == false)
    })
    .unwrap();
    says(
        &cluster.refused(&["migrate", redis, "--to", "h2"]).unwrap(),
        &["host `h2` is down", "hint: start `godwit-agent` there"],
    );

    // None of it was more than words: what ran, runs.
    scene.goes_on(&cluster).unwrap();
    scene.finish(&cluster).unwrap();
}
