//! What happens to a container, to a link or to an agent in the midst of a round: the migration ends
//! in time with its reason, the container is as it would have been without it, and the next one
//! succeeds.

use std::time::{Duration, Instant};

use godwit_tests::{
    command::sh,
    mover::{Mover, Rest, at_rest, ended, view},
    scene::host_of,
    testbed::{Cluster, Options, PATIENCE, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// For a host or a peer that is silent to be noticed: it is by keepalives, and by heartbeats.
const NOTICED: Duration = Duration::from_secs(20);

/// The leader is on host 1, the container on 2, and goes to 3.
struct Stage {
    cluster: Cluster,
    rest: Rest,
}

impl Stage {
    fn set() -> Self {
        let cluster = Cluster::start(Options {
            hosts: 3,
            members: 1,
            ..Options::default()
        })
        .unwrap();
        cluster.load_workload().unwrap();
        let rest = at_rest(&cluster, 3).unwrap();
        Self { cluster, rest }
    }

    fn container(&self, name: &str, limits: &[&str], options: &[&str]) -> (Mover, f64) {
        let mover = Mover::play(&self.cluster, name, 2, limits, options).unwrap();
        let speed = mover.goes_on(&self.cluster).unwrap();
        (mover, speed)
    }

    /// Insists that it was aborted for this reason, which was said in time.
    fn aborted(&self, id: &str, began: Instant, words: &[&str]) -> Value {
        let mut last = Value::Null;
        wait_for("the reason", NOTICED, || {
            last = view(&self.cluster, id).unwrap_or_default();
            last["error"].is_string()
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last}"));
        let error = last["error"].as_str().unwrap().to_owned();
        println!("after {:?}: {error}", began.elapsed());
        for word in words {
            assert!(error.contains(word), "no `{word}` in: {error}");
        }
        last
    }

    fn over(&self, id: &str) {
        assert_eq!(ended(&self.cluster, id).unwrap()["phase"], "aborted");
        self.rest.holds_again(&self.cluster).unwrap();
    }

    fn remove(&self, mover: &Mover) {
        self.cluster.ok(&["rm", "-f", &mover.name]).unwrap();
        self.cluster
            .ok(&["rm", "-f", &format!("witness-of-{}", mover.name)])
            .unwrap();
    }

    /// The status of one that has ended.
    fn exit_code(&self, name: &str) -> Value {
        let mut last = Value::Null;
        wait_for("its end in the list", PATIENCE, || {
            last = self.cluster.json(&["inspect", name]).unwrap_or_default();
            last["status"]["state"] == "exited"
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last}"));
        last["status"]["exit"]["code"].clone()
    }
}

#[test]
fn a_container_that_ends_or_runs_its_program_anew_in_the_midst_of_a_round_does_as_it_would() {
    let stage = Stage::set();
    let cluster = &stage.cluster;

    let (mover, _) = stage.container("exits", &[], &["--rss=64", "--rate=2"]);
    let id = mover.begin_slowly(cluster, 3).unwrap();
    let began = Instant::now();
    let first = cluster.json(&["inspect", "exits"]).unwrap()["pid"]
        .as_i64()
        .unwrap();
    kill(Pid::from_raw(pid_here(cluster, first)), Signal::SIGTERM).unwrap();
    stage.aborted(
        &id,
        began,
        &["host `h2`", "ended while its memory was being sent"],
    );
    stage.over(&id);
    assert_eq!(stage.exit_code("exits"), 0);
    stage.remove(&mover);

    let (mover, _) = stage.container("grows", &["--memory", "128m"], &["--rss=64", "--rate=2"]);
    let id = mover.begin_slowly(cluster, 3).unwrap();
    mover.tell(cluster, "grow").unwrap();
    let began = Instant::now();
    stage.aborted(
        &id,
        began,
        &["host `h2`", "ended while its memory was being sent"],
    );
    stage.over(&id);
    assert_eq!(stage.exit_code("grows"), 137);
    stage.remove(&mover);

    // It is another program then, with other memory: that moves.
    let (mut mover, _) = stage.container("execs", &[], &["--rss=16", "--rate=1"]);
    let id = mover
        .begin(
            cluster,
            3,
            &["--max-bandwidth", "3M", "--max-downtime", "10s"],
        )
        .unwrap();
    wait_for("the first round", PATIENCE, || {
        view(cluster, &id).is_ok_and(|view| view["progress"]["round"] == 1)
    })
    .unwrap();
    mover.tell(cluster, "exec").unwrap();
    cluster
        .wait_for_log("execs", |text| text.matches("ready").count() == 2)
        .unwrap();
    assert_eq!(
        view(cluster, &id).unwrap()["phase"],
        "reserved",
        "it was over before the exec"
    );
    let end = ended(cluster, &id).unwrap();
    assert_eq!(end["phase"], "done", "{end}");
    cluster.ok(&["rm", "-f", "witness-of-execs"]).unwrap();
    mover.watch(cluster, 2).unwrap();
    assert_eq!(mover.verify(cluster).unwrap(), 16 * 256);
    mover.dismiss(cluster).unwrap();
    let stopped = cluster.json(&["stop", "-t", "60", "execs"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{stopped}");
}

#[test]
fn a_cut_link_or_a_killed_agent_in_the_midst_of_a_round_leaves_the_container_as_it_was() {
    let mut stage = Stage::set();
    let (mover, speed) = stage.container("mover", &[], &["--rss=64", "--rate=2"]);
    for host in [3, 2] {
        let id = mover.begin_slowly(&stage.cluster, 3).unwrap();
        let port = stage.cluster.host(host).port().to_owned();
        let began = Instant::now();
        sh(&format!("ip link set {port} down")).unwrap();
        stage.aborted(&id, began, &[&format!("h{host}")]);
        // It does not wait for the link.
        mover.is_let_go(&stage.cluster).unwrap();
        sh(&format!("ip link set {port} up")).unwrap();
        stage.over(&id);
        mover.is_untouched(&stage.cluster, 2, speed).unwrap();
    }
    for host in [3, 2] {
        let id = mover.begin_slowly(&stage.cluster, 3).unwrap();
        let began = Instant::now();
        stage.cluster.kill(host, "godwit-agent").unwrap();
        stage.aborted(&id, began, &[&format!("h{host}")]);
        mover.is_let_go(&stage.cluster).unwrap();
        stage.cluster.start_agent(host, &[], false).unwrap();
        assert_eq!(ended(&stage.cluster, &id).unwrap()["phase"], "aborted");
        if host == 3 {
            // The agent is another process now, and has made what it makes once.
            stage.rest = at_rest(&stage.cluster, 3).unwrap();
            let left = stage
                .cluster
                .processes_of(&stage.cluster.id("mover").unwrap())
                .unwrap();
            let containers = stage.cluster.host(3).dir.join("data/containers");
            assert_eq!(std::fs::read_dir(containers).unwrap().count(), 0);
            assert_eq!(left.len(), 1, "only the source's: {left:?}");
        }
        stage.rest.holds_again(&stage.cluster).unwrap();
        mover.is_untouched(&stage.cluster, 2, speed).unwrap();
    }
    stage.cluster.wait_for_hosts(3).unwrap();
    let id = mover
        .begin(&stage.cluster, 3, &["--max-downtime", "10s"])
        .unwrap();
    let end = ended(&stage.cluster, &id).unwrap();
    assert_eq!(end["phase"], "done", "{end}");
    assert_eq!(host_of(&stage.cluster, "mover").unwrap(), "h3");
    assert_eq!(mover.verify(&stage.cluster).unwrap(), 64 * 256);
    mover.dismiss(&stage.cluster).unwrap();
}

/// A pid as the container's host numbers it, as this machine does.
fn pid_here(cluster: &Cluster, there: i64) -> i32 {
    let pids = cluster.processes_of(&cluster.id("exits").unwrap()).unwrap();
    let numbered = |pid: &&i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("NSpid:"))
            .unwrap_or_default();
        line.split_whitespace()
            .any(|number| number == there.to_string())
    };
    *pids.iter().find(numbered).unwrap()
}
