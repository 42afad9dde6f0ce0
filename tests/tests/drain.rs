//! A host is drained of its containers while the leader is killed: all of them go on elsewhere,
//! and never are more of them under way than the limits allow.

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use godwit_tests::{
    scene::SOON,
    testbed::{Cluster, Options, PATIENCE, list, wait_for},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const CONTAINERS: usize = 12;

fn name(number: usize) -> String {
    format!("count-{number}")
}

fn start(cluster: &Cluster, name: &str, arguments: &[&str]) {
    let mut all = vec!["run", "-d", "--name", name];
    all.extend(arguments);
    all.extend(["workload", "/bin/godwit-workload", "count"]);
    cluster.ok(&all).unwrap();
}

/// How far it has counted; every number must have come once.
fn count(cluster: &Cluster, name: &str) -> usize {
    let log = cluster.logs(name).unwrap();
    // The last line may still be on its way.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let numbers: Vec<usize> = whole.lines().filter_map(|line| line.parse().ok()).collect();
    let expected: Vec<usize> = (0..numbers.len()).collect();
    assert_eq!(numbers, expected, "{name} lost or repeated a number");
    numbers.len()
}

/// Those that have started and not ended: what the limits are about.
fn under_way(migrations: &Value) -> Vec<&Value> {
    let all = list(migrations).iter();
    all.filter(|m| {
        let over = ["done", "aborted", "aborting"]
            .iter()
            .any(|phase| m["phase"] == *phase);
        !over && m["place"].is_null()
    })
    .collect()
}

/// Looks whether the limits hold. Answers how many are under way, and how many have ended.
fn look(cluster: &Cluster) -> (usize, usize) {
    // While there is no leader, nothing can be seen.
    let Ok(migrations) = cluster.json(&["migration", "ls"]) else {
        return (0, 0);
    };
    let now = under_way(&migrations);
    for host in ["h1", "h2", "h3"] {
        let of = |side: &str| now.iter().filter(|m| m[side] == host).count();
        assert!(of("from") <= 2 && of("to") <= 2, "{now:#?}");
    }
    assert!(now.len() <= 8, "{now:#?}");
    let done = list(&migrations).iter().filter(|m| m["phase"] == "done");
    (now.len(), done.count())
}

fn finished(drain: &mut Child, cluster: &Cluster) -> usize {
    let began = Instant::now();
    let mut most = 0;
    while drain.try_wait().unwrap().is_none() {
        most = most.max(look(cluster).0);
        assert!(began.elapsed() < PATIENCE * 2, "the drain does not end");
        thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Begins it, and ends its watching as Ctrl-C does.
fn interrupt(cluster: &Cluster) {
    let mut drain = cluster.godwit(&["host", "drain", "h1"]);
    drain.stderr(Stdio::piped());
    let drain = drain.spawn().unwrap();
    wait_for("a drain", PATIENCE, || look(cluster).0 > 0).unwrap();
    let pid = i32::try_from(drain.id()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
    let ended = drain.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(
        said.contains("the drain goes on; `godwit host drain h1`"),
        "{said}"
    );
}

#[test]
fn a_drained_host_is_left_by_all_within_the_limits_and_by_way_of_another_leader() {
    let mut cluster = Cluster::start(Options::default()).unwrap();
    cluster.load_workload().unwrap();
    for numbers in (1..=CONTAINERS).collect::<Vec<_>>().chunks(4) {
        thread::scope(|scope| {
            for number in numbers {
                let cluster = &cluster;
                scope.spawn(move || start(cluster, &name(*number), &["--host", "h1"]));
            }
        });
    }

    interrupt(&cluster);
    let began = Instant::now();
    let mut drain = cluster.godwit(&["host", "drain", "h1"]);
    drain.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut drain = drain.spawn().unwrap();
    let mut most = 0;
    wait_for("the first that have moved", PATIENCE, || {
        let (now, done) = look(&cluster);
        most = most.max(now);
        done >= 3
    })
    .unwrap();
    let before: Vec<_> = (1..=CONTAINERS)
        .map(|n| count(&cluster, &name(n)))
        .collect();
    let leader = cluster.leader().unwrap();
    cluster.kill(leader, "godwit-controller").unwrap();
    most = most.max(finished(&mut drain, &cluster));
    let ended = drain.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let summary = format!("h1 is drained: {CONTAINERS} moved\n");
    assert_eq!(String::from_utf8_lossy(&ended.stdout), summary, "{said}");
    println!("drained in {:?}, {most} at once\n{said}", began.elapsed());
    assert_eq!(most, 2);
    assert_ne!(cluster.leader().unwrap(), leader);

    // All of them run and count elsewhere, spread over both hosts.
    let all = cluster.json(&["ps"]).unwrap();
    let hosts: BTreeSet<_> = list(&all)
        .iter()
        .map(|c| c["host"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, BTreeSet::from(["h2", "h3"]), "{all}");
    assert_eq!(list(&all).len(), CONTAINERS, "{all}");
    for (number, before) in (1..=CONTAINERS).zip(before) {
        wait_for("a container that counts on", SOON, || {
            count(&cluster, &name(number)) > before + 5
        })
        .unwrap();
    }
    let migrations = cluster.json(&["migration", "ls"]).unwrap();
    let mut freezes: Vec<_> = list(&migrations)
        .iter()
        .filter(|m| m["phase"] == "done")
        .map(|m| m["times"]["freeze_us"].as_u64().unwrap())
        .collect();
    freezes.sort_unstable();
    println!("freezes in us: {freezes:?}");
    assert_eq!(freezes.len(), CONTAINERS);
    // Those that the leader's end met waited for the next one.
    assert!(freezes[CONTAINERS / 2] < 1_000_000, "{freezes:?}");
    assert!(freezes[CONTAINERS - 1] < 15_000_000, "{freezes:?}");

    // It takes nothing new, until it is taken back.
    let hosts = cluster.json(&["host", "ls"]).unwrap();
    assert_eq!(list(&hosts)[0]["draining"], true, "{hosts}");
    assert_eq!(list(&hosts)[0]["containers"], 0, "{hosts}");
    let table = cluster.ok(&["host", "ls"]).unwrap();
    assert!(table.contains("up, drained"), "{table}");
    let new = ["run", "-d", "--name", "new", "--host", "h1", "workload"];
    let said = cluster.refused(&new).unwrap();
    assert!(said.contains("is being drained"), "{said}");
    let said = cluster
        .refused(&["migrate", &name(1), "--to", "h1"])
        .unwrap();
    assert!(said.contains("godwit host activate h1"), "{said}");
    start(&cluster, "new", &[]);
    let new = cluster.json(&["inspect", "new"]).unwrap();
    assert_ne!(new["host"], "h1", "{new}");
    cluster.ok(&["host", "activate", "h1"]).unwrap();
    cluster.migrate(&name(1), 1).unwrap();
    start(&cluster, "newer", &["--host", "h1"]);
}
