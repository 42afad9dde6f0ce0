//! Nothing is left: on a host when its containers are gone, on the machine when a cluster is.

use std::collections::BTreeSet;

use godwit_tests::{
    scene::Scene,
    testbed::{Cluster, Marks, Options, on_host},
};

fn remove_all(cluster: &Cluster) {
    let names: Vec<String> = cluster
        .ok(&["--format", "json", "ps", "-a"])
        .map(|text| serde_json::from_str::<serde_json::Value>(&text).unwrap())
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|view| view["name"].as_str().unwrap().to_owned())
        .collect();
    for name in names {
        cluster.ok(&["rm", "-f", &name]).unwrap();
    }
}

#[test]
fn a_cluster_with_finished_and_aborted_migrations_leaves_nothing() {
    let mut cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        agent_env: vec![(3, "CRIU_FAULT".to_owned(), "6".to_owned())],
        ..Options::default()
    })
    .unwrap();
    Scene::prepare(&cluster).unwrap();
    // What is made once and stays: bridges and tables of the network.
    for host in ["h1", "h2", "h3"] {
        cluster
            .ok(&[
                "run",
                "-d",
                "--host",
                host,
                "--network",
                "scene",
                "workload",
                "/bin/godwit-workload",
                "exit",
                "0",
            ])
            .unwrap();
    }
    remove_all(&cluster);
    let rest: Vec<BTreeSet<String>> = (1..=3)
        .map(|host| on_host(&cluster, host).unwrap())
        .collect();

    let scene = Scene::play(&cluster, 1, 3).unwrap();
    cluster.migrate(&scene.redis, 2).unwrap();
    cluster
        .refused(&["migrate", &scene.redis, "--to", "h3"])
        .unwrap();
    cluster.migrate(&scene.redis, 1).unwrap();
    for (host, rest) in [(1, &rest[0]), (3, &rest[2])] {
        let now = on_host(&cluster, host).unwrap();
        let grown: Vec<_> = now.difference(rest).collect();
        // A look that sees no running container would see no left one either.
        for what in [
            "link",
            "cgroup",
            "process",
            "data/containers",
            "run/shims",
            "mount",
        ] {
            let seen = grown.iter().any(|name| name.starts_with(what));
            assert!(seen, "no {what} on h{host}: {grown:#?}");
        }
    }
    let marks = Marks::of(&cluster).unwrap();
    // Three of each host, and three of each container.
    assert!(marks.namespaces() >= 15, "{marks:?}");
    assert!(marks.found().unwrap().len() > 10);

    remove_all(&cluster);
    for (host, rest) in (1u8..).zip(&rest) {
        let now = on_host(&cluster, host).unwrap();
        let left: Vec<_> = now.difference(rest).collect();
        assert!(left.is_empty(), "left on h{host}: {left:#?}");
    }

    // And a cluster that ends with everything still running.
    let scene = Scene::play(&cluster, 2, 1).unwrap();
    cluster
        .refused(&["migrate", &scene.redis, "--to", "h3"])
        .unwrap();
    let marks = Marks::of(&cluster).unwrap();
    cluster.stop();
    let left = marks.found().unwrap();
    assert!(left.is_empty(), "{left:#?}");
}
