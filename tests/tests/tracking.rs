//! Hosts whose kernels can't track writes as this one can: memory is moved in the freeze, and that
//! is said; or CRIU asks for pages in another way.

use godwit_tests::{
    mover::Mover,
    scene::{Scene, host_of, last_migration},
    testbed::{Cluster, Options, list},
};

#[test]
fn where_writes_can_not_be_tracked_redis_moves_in_its_freeze_and_precopy_is_refused() {
    let none = "--tracking=none".to_owned();
    let bits = "--tracking=soft-dirty".to_owned();
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        agent_arguments: vec![(1, none), (2, bits)],
        ..Options::default()
    })
    .unwrap();
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 2).unwrap();

    let reason = "memory can't be sent ahead of the freeze: this agent is told not to track writes";
    let precopy = ["migrate", &scene.redis, "--to", "h2", "--mode", "precopy"];
    let refused = cluster.refused(&precopy).unwrap();
    assert!(refused.contains(reason), "{refused}");
    assert_eq!(host_of(&cluster, &scene.redis).unwrap(), "h1");
    scene.goes_on(&cluster).unwrap();

    let auto = ["migrate", &scene.redis, "--to", "h2"];
    let output = cluster
        .output(&[&auto[..], &["--dry-run"]].concat())
        .unwrap();
    assert!(output.status.success());
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(
        page.contains("note:      host `h1` sends all memory in the freeze"),
        "{page}"
    );

    let output = cluster.output(&auto).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let note = "note: host `h1` sends all memory in the freeze: this agent is told not to";
    assert!(said.contains(note), "{said}");
    assert_eq!(host_of(&cluster, &scene.redis).unwrap(), "h2");
    let moved = last_migration(&cluster).unwrap();
    assert!(list(&moved["rounds"]).is_empty(), "{moved}");
    scene.goes_on(&cluster).unwrap();

    // h2 has no choice but soft-dirty, which few kernels are built with.
    let hosts = cluster.json(&["host", "ls"]).unwrap();
    let problem = list(&hosts)[1]["facts"]["precopy_problem"].clone();
    let back = ["migrate", &scene.redis, "--to", "h1", "--mode", "precopy"];
    if problem.is_null() {
        cluster.ok(&back).unwrap();
        let moved = last_migration(&cluster).unwrap();
        assert!(!list(&moved["rounds"]).is_empty(), "{moved}");
        scene.goes_on(&cluster).unwrap();
    } else {
        let refused = cluster.refused(&back).unwrap();
        assert!(refused.contains("by soft-dirty: "), "{refused}");
        assert!(refused.contains("CONFIG_MEM_SOFT_DIRTY"), "{refused}");
    }
    scene.finish(&cluster).unwrap();
}

#[test]
fn where_criu_reads_page_by_page_it_leaves_what_was_sent_to_those_who_sent_it() {
    // "Don't use PAGEMAP_SCAN", which kernels before 6.7 have not.
    let old = |host| (host, "CRIU_FAULT".to_owned(), "135".to_owned());
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        agent_env: vec![old(1), old(2)],
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let mover = Mover::play(&cluster, "memory", 1, &[], &["--rss=64", "--rate=20"]).unwrap();
    for to in [2, 1] {
        let moved = cluster.migrate(&mover.name, to).unwrap();
        let rounds = list(&moved["rounds"]).iter();
        let sent: u64 = rounds
            .filter_map(|round| round["sent_bytes"].as_u64())
            .sum();
        let frozen = moved["times"]["bytes"].as_u64().unwrap() - sent;
        assert!(sent > 64 << 20, "{moved}");
        assert!(frozen < 32 << 20, "{frozen} bytes in the freeze: {moved}");
        assert_eq!(mover.verify(&cluster).unwrap(), 64 << 8);
    }
}
