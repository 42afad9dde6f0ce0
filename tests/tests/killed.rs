//! An agent or the leader is killed: containers serve on, and can be moved as before.

use std::time::Instant;

use godwit_tests::{
    scene::{SOON, Scene, host_of},
    testbed::{Cluster, Options, PATIENCE, list, wait_for},
};

fn is_running(cluster: &Cluster, container: &str) -> bool {
    let containers = cluster.json(&["ps"]).unwrap();
    list(&containers).iter().any(|view| {
        view["name"] == container && view["status"]["state"] == "running" && view["host_up"] == true
    })
}

#[test]
fn a_container_outlives_its_agent_moves_afterwards_and_its_exit_code_is_learned() {
    let mut cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "exit",
            "--host",
            "h1",
            "workload",
            "/bin/godwit-workload",
            "exit",
            "42",
        ])
        .unwrap();
    cluster
        .wait_for_log("exit", |text| text.contains("ready"))
        .unwrap();

    cluster.kill(1, "godwit-agent").unwrap();
    wait_for("host 1 down", PATIENCE, || {
        let hosts = cluster.json(&["host", "ls"]).unwrap();
        list(&hosts)
            .iter()
            .any(|h| h["name"] == "h1" && h["up"] == false)
    })
    .unwrap();
    scene.goes_on(&cluster).unwrap();

    cluster.start_agent(1, &[], false).unwrap();
    for container in [scene.redis.as_str(), "exit"] {
        wait_for("running again in the list", PATIENCE, || {
            is_running(&cluster, container)
        })
        .unwrap();
    }
    cluster.migrate(&scene.redis, 2).unwrap();
    scene.goes_on(&cluster).unwrap();
    cluster.migrate("exit", 2).unwrap();
    // And the agent that only received them.
    cluster.kill(2, "godwit-agent").unwrap();
    cluster.start_agent(2, &[], false).unwrap();
    cluster.wait_for_hosts(3).unwrap();
    wait_for("running again in the list", PATIENCE, || {
        is_running(&cluster, "exit")
    })
    .unwrap();
    // And that of the client, which has to learn where Redis goes next.
    cluster.kill(3, "godwit-agent").unwrap();
    cluster.start_agent(3, &[], false).unwrap();
    cluster.wait_for_hosts(3).unwrap();
    cluster.migrate(&scene.redis, 1).unwrap();
    scene.goes_on(&cluster).unwrap();
    let stopped = cluster.json(&["stop", "exit"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 42, "{stopped}");
    let stopped = cluster.json(&["stop", &scene.redis]).unwrap();
    assert!(stopped[0]["exit_code"].is_number(), "{stopped}");
}

#[test]
fn without_its_leader_the_cluster_answers_and_moves_within_five_seconds() {
    let mut cluster = Cluster::start(Options::default()).unwrap();
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    let leader = cluster.leader().unwrap();
    cluster.kill(leader, "godwit-controller").unwrap();
    let killed = Instant::now();
    wait_for("an answer to `godwit ps`", SOON, || {
        cluster.json(&["ps"]).is_ok_and(|all| list(&all).len() == 2)
    })
    .unwrap();
    // At once: who asks for it should not have to ask twice.
    cluster.migrate(&scene.redis, 2).unwrap();
    let took = killed.elapsed();
    println!("moved {took:?} after the leader's end");
    assert!(took < SOON, "{took:?}");
    assert_eq!(host_of(&cluster, &scene.redis).unwrap(), "h2");
    assert_ne!(cluster.leader().unwrap(), leader);
    scene.goes_on(&cluster).unwrap();
    cluster.start_member(leader, false).unwrap();
    cluster.migrate(&scene.redis, 3).unwrap();
    scene.finish(&cluster).unwrap();
}
