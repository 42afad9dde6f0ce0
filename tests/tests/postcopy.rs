//! Post-copy: the container runs at the destination while its memory is still on its way, and
//! nothing but the loss of the source loses a page.

use std::time::Duration;

use godwit_tests::{
    command::sh,
    mover::{Mover, ended, view},
    scene::host_of,
    testbed::{Cluster, Options, PATIENCE, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// The first round takes so long that everything is written again meanwhile, and what is left
/// behind takes as long once more.
const SLOWLY: [&str; 4] = ["--mode", "postcopy", "--max-bandwidth", "1500K"];
const PAGES: u64 = 16 * 256;

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
}

fn mover(cluster: &Cluster, name: &str) -> Mover {
    // What it writes it touches: faster, and nothing would be left behind for long.
    let memory = ["--rss=16", "--rate=2"];
    Mover::play(cluster, name, 2, &[], &memory).unwrap()
}

/// Until the container runs at the destination and most of its memory does not.
fn until_resumed(cluster: &Cluster, id: &str) -> Value {
    let mut last = Value::Null;
    wait_for("the container at its destination", PATIENCE, || {
        last = view(cluster, id).unwrap_or_default();
        assert_ne!(last["phase"], "done", "nothing was left behind: {last}");
        last["phase"] == "resumed" && last["progress"]["pages_left"].as_u64() > Some(PAGES / 4)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
    last
}

#[test]
fn programs_that_change_all_their_memory_are_whole_after_three_post_copies() {
    let cluster = cluster();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "churn",
            "--host",
            "h1",
            "workload",
            "/bin/godwit-workload",
            "churn",
        ])
        .unwrap();
    cluster
        .wait_for_log("churn", |text| text.contains("ready"))
        .unwrap();
    let mover = mover(&cluster, "memory");
    let progress = |text: &str| {
        let numbers = text.lines().filter_map(|line| line.parse().ok());
        numbers.max().unwrap_or(0_u64)
    };
    for to in ["h3", "h1", "h2"] {
        let moved = cluster
            .json(&["migrate", "memory", "--to", to, "--mode", "postcopy"])
            .unwrap();
        assert_eq!(moved["phase"], "done", "{moved}");
        assert!(moved["error"].is_null(), "{moved}");
        assert_eq!(mover.verify(&cluster).unwrap(), PAGES);

        let before = progress(&cluster.logs("churn").unwrap());
        let to = if to == "h1" { "h2" } else { to };
        let moved = cluster
            .json(&["migrate", "churn", "--to", to, "--mode", "postcopy"])
            .unwrap();
        assert_eq!(moved["phase"], "done", "{moved}");
        cluster
            .wait_for_log("churn", |text| {
                text.contains("bad") || progress(text) > before + 3000
            })
            .unwrap();
        let log = cluster.logs("churn").unwrap();
        assert!(!log.contains("bad"), "{log}");
        if to == "h2" {
            break;
        }
    }
    mover.dismiss(&cluster).unwrap();
    for name in ["churn", "memory"] {
        let stopped = cluster.json(&["stop", "-t", "60", name]).unwrap();
        assert_eq!(stopped[0]["exit_code"], 0, "{stopped}");
    }
}

#[test]
fn a_cut_link_and_killed_agents_only_delay_what_was_left_behind() {
    let mut cluster = cluster();
    let mover = mover(&cluster, "memory");
    let id = mover.begin(&cluster, 3, &SLOWLY).unwrap();
    until_resumed(&cluster, &id);
    assert_eq!(host_of(&cluster, "memory").unwrap(), "h3");

    // It serves, and lacks pages: a cut holds up whoever needs them, and nobody else.
    let port = cluster.host(2).port().to_owned();
    sh(&format!("ip link set {port} down")).unwrap();
    for host in [2, 3] {
        cluster.kill(host, "godwit-agent").unwrap();
        cluster.start_agent(host, &[], false).unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(view(&cluster, &id).unwrap()["phase"], "resumed");
    sh(&format!("ip link set {port} up")).unwrap();
    let end = ended(&cluster, &id).unwrap();
    assert_eq!(end["phase"], "done", "{end}");
    assert!(end["error"].is_null(), "{end}");
    assert_eq!(mover.verify(&cluster).unwrap(), PAGES);
    mover.dismiss(&cluster).unwrap();
    // It has all its memory, and can leave again.
    cluster.migrate("memory", 2).unwrap();
    let stopped = cluster.json(&["stop", "-t", "60", "memory"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{stopped}");
}

#[test]
fn a_source_that_loses_what_it_kept_is_reported_and_the_container_does_not_run_on_without_it() {
    let cluster = cluster();
    let mover = mover(&cluster, "memory");
    let container = cluster.id("memory").unwrap();
    let source = cluster.processes_of(&container).unwrap();
    assert!(!source.is_empty());
    let id = mover.begin(&cluster, 3, &SLOWLY).unwrap();
    until_resumed(&cluster, &id);
    // As the kernel would for want of memory.
    for pid in source {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    let end = ended(&cluster, &id).unwrap();
    assert_eq!(end["phase"], "done", "{end}");
    let error = end["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("`h2`") && error.contains("lost"),
        "not reported: {end}"
    );
    let mut last = Value::Null;
    wait_for("its end", PATIENCE, || {
        last = cluster.json(&["inspect", "memory"]).unwrap_or_default();
        last["status"]["state"] == "exited"
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
    assert_eq!(last["status"]["exit"]["code"], 137, "{last}");
    cluster.ok(&["rm", "-f", "memory"]).unwrap();
    assert!(cluster.processes_of(&container).unwrap().is_empty());
}
