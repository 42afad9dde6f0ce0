//! The shim of a container is killed: the container runs on, its output with it, and another shim
//! takes it up, so that it can be stopped, removed and moved as before.

use godwit_tests::{
    mover::{Mover, ended, view},
    scene::{Scene, host_of},
    testbed::{Cluster, Options, PATIENCE, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn cluster(hosts: u8) -> Cluster {
    let cluster = Cluster::start(Options {
        hosts,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
}

fn run(cluster: &Cluster, name: &str, on: u8, command: &[&str]) {
    let host = format!("h{on}");
    let mut arguments = vec!["run", "-d", "--name", name, "--host", &host, "workload"];
    arguments.push("/bin/godwit-workload");
    arguments.extend(command);
    cluster.ok(&arguments).unwrap();
}

fn numbers(cluster: &Cluster, container: &str) -> Vec<u64> {
    let log = cluster.logs(container).unwrap();
    log.lines().map(|line| line.parse().unwrap()).collect()
}

/// It prints on from now on.
fn prints_on(cluster: &Cluster, container: &str) {
    let before = numbers(cluster, container).len();
    cluster
        .wait_for_log(container, |text| text.lines().count() > before + 50)
        .unwrap();
}

/// One shim has it, and its cluster says that it runs.
fn is_adopted(cluster: &Cluster, container: &str, on: u8) {
    let id = cluster.id(container).unwrap();
    let mut last = Value::Null;
    wait_for("another shim", PATIENCE, || {
        last = cluster.json(&["inspect", container]).unwrap_or_default();
        cluster.shims(on, &id).is_ok_and(|all| all.len() == 1)
            && last["status"]["state"] == "running"
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
}

#[test]
fn a_container_outlives_its_shims_and_is_printed_stopped_moved_and_removed_as_before() {
    let mut cluster = cluster(2);
    run(&cluster, "count", 1, &["count"]);
    run(&cluster, "exit", 1, &["exit", "42"]);
    prints_on(&cluster, "count");
    cluster
        .wait_for_log("exit", |text| text.contains("ready"))
        .unwrap();
    let before = cluster.processes_of(&cluster.id("count").unwrap()).unwrap();

    for _ in 0..2 {
        for container in ["count", "exit"] {
            cluster.kill_shim(1, container).unwrap();
            is_adopted(&cluster, container, 1);
        }
        prints_on(&cluster, "count");
    }
    let after = cluster.processes_of(&cluster.id("count").unwrap()).unwrap();
    assert_eq!(before, after, "it is another container");
    cluster.migrate("count", 2).unwrap();
    prints_on(&cluster, "count");

    // Where it went, and with nobody there to notice.
    cluster.kill(2, "godwit-agent").unwrap();
    cluster.kill_shim(2, "count").unwrap();
    cluster.start_agent(2, &[], false).unwrap();
    cluster.wait_for_hosts(2).unwrap();
    is_adopted(&cluster, "count", 2);
    prints_on(&cluster, "count");
    cluster.migrate("count", 1).unwrap();
    prints_on(&cluster, "count");

    let stopped = cluster.json(&["stop", "exit"]).unwrap();
    // 255: this kernel does not tell who is no parent.
    let code = stopped[0]["exit_code"].as_u64();
    assert!(matches!(code, Some(42 | 255)), "{stopped}");
    assert_eq!(cluster.logs("exit").unwrap(), "ready\n");
    cluster.ok(&["rm", "exit"]).unwrap();

    // No notice is taken between the two.
    cluster.kill_shim(1, "count").unwrap();
    let stopped = cluster.json(&["stop", "count"]).unwrap();
    let code = stopped[0]["exit_code"].as_u64();
    assert!(matches!(code, Some(0 | 255)), "{stopped}");
    for (expected, number) in numbers(&cluster, "count").into_iter().enumerate() {
        assert_eq!(number, expected as u64, "output has a gap or a repeat");
    }
    cluster.ok(&["rm", "count"]).unwrap();
    run(&cluster, "removed", 1, &["count"]);
    prints_on(&cluster, "removed");
    let id = cluster.id("removed").unwrap();
    cluster.kill_shim(1, "removed").unwrap();
    cluster.ok(&["rm", "-f", "removed"]).unwrap();
    assert!(cluster.processes_of(&id).unwrap().is_empty());
    for host in [1, 2] {
        for dir in ["data/containers", "run/shims"] {
            let left = std::fs::read_dir(cluster.host(host).dir.join(dir)).unwrap();
            let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
            assert!(left.is_empty(), "left in {dir} of h{host}: {left:?}");
        }
    }
}

#[test]
fn connections_of_a_container_without_its_shim_last_through_its_next_move() {
    let cluster = cluster(3);
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    cluster.kill_shim(1, &scene.redis).unwrap();
    scene.goes_on(&cluster).unwrap();
    // At once, whoever has noticed.
    cluster.migrate(&scene.redis, 2).unwrap();
    cluster.kill_shim(2, &scene.redis).unwrap();
    cluster.migrate(&scene.redis, 1).unwrap();
    assert_eq!(host_of(&cluster, &scene.redis).unwrap(), "h1");
    scene.finish(&cluster).unwrap();
}

/// CRIU stands still with its answer, and goes on when nobody is there any more.
#[test]
fn a_container_whose_shim_is_killed_in_the_midst_of_its_resume_runs() {
    let cluster = cluster(3);
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    let hold = cluster.hold(2, "resume").unwrap();
    let migrate = ["migrate", "-d", &scene.redis, "--to", "h2"];
    let migration = cluster.ok(&migrate).unwrap();
    hold.wait(PATIENCE).unwrap();
    let signal = |signal| {
        for pid in cluster.host(2).processes("criu").unwrap() {
            kill(Pid::from_raw(pid), signal).unwrap();
        }
    };
    signal(Signal::SIGSTOP);
    hold.release().unwrap();
    let id = cluster.id(&scene.redis).unwrap();
    let held = cluster.host(2).dir.join("data/containers").join(&id);
    wait_for("the resume", PATIENCE, || !held.join("held").exists()).unwrap();
    // It has given its answers, and waits for CRIU.
    let shim = cluster.shims(2, &id).unwrap()[0];
    wait_for("a shim that waits", PATIENCE, || {
        let stack = std::fs::read_to_string(format!("/proc/{shim}/wchan"));
        stack.is_ok_and(|stack| stack.contains("poll"))
    })
    .unwrap();
    cluster.kill_shim(2, &scene.redis).unwrap();
    signal(Signal::SIGCONT);
    let last = ended(&cluster, &migration).unwrap();
    assert_eq!(last["phase"], "done", "{last}");
    scene.goes_on(&cluster).unwrap();
    cluster.migrate(&scene.redis, 1).unwrap();
    scene.finish(&cluster).unwrap();
}

/// Until the mover runs on host 1, and most of its memory does not. Answers the migration.
fn half_moved(cluster: &Cluster, mover: &Mover) -> String {
    let slowly = ["--mode", "postcopy", "--max-bandwidth", "1500K"];
    let id = mover.begin(cluster, 1, &slowly).unwrap();
    let mut last = Value::Null;
    wait_for("the container at its destination", PATIENCE, || {
        last = view(cluster, &id).unwrap_or_default();
        assert_ne!(last["phase"], "done", "nothing was left behind: {last}");
        last["phase"] == "resumed" && last["progress"]["pages_left"].as_u64() > Some(256)
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
    id
}

/// Memory that is still on its way is not the shim's but the pager's.
#[test]
fn a_post_copy_goes_on_without_the_shim_at_its_destination() {
    let cluster = cluster(3);
    let mover = Mover::play(&cluster, "mover", 2, &[], &["--rss=16", "--rate=2"]).unwrap();
    let id = half_moved(&cluster, &mover);
    cluster.kill_shim(1, "mover").unwrap();
    let last = ended(&cluster, &id).unwrap();
    assert_eq!(last["phase"], "done", "{last}");
    assert!(last["error"].is_null(), "{last}");
    assert!(mover.verify(&cluster).unwrap() > 0);
    mover.goes_on(&cluster).unwrap();
    cluster.migrate("mover", 2).unwrap();
    assert!(mover.verify(&cluster).unwrap() > 0);
    mover.dismiss(&cluster).unwrap();
}

#[test]
fn a_container_whose_memory_is_gone_with_shim_and_pager_is_ended_and_says_why() {
    let mut cluster = cluster(3);
    let mover = Mover::play(&cluster, "mover", 2, &[], &["--rss=16", "--rate=2"]).unwrap();
    let migration = half_moved(&cluster, &mover);
    // The pager is the same program.
    cluster.kill(1, "godwit-shim").unwrap();
    let mut last = Value::Null;
    wait_for("the reason", PATIENCE, || {
        last = cluster.json(&["inspect", "mover"]).unwrap_or_default();
        let reason = last["status"]["reason"].as_str().unwrap_or_default();
        last["status"]["state"] == "failed" && reason.contains("memory")
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
    ended(&cluster, &migration).unwrap();
    let id = cluster.id("mover").unwrap();
    cluster.ok(&["rm", "-f", "mover"]).unwrap();
    assert!(cluster.processes_of(&id).unwrap().is_empty());
}
