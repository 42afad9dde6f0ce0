//! Redis moves through all hosts while a client counts on one connection.

use godwit_tests::{
    scene::{Scene, host_of},
    testbed::{Cluster, Options},
};

#[test]
fn a_client_on_one_connection_gets_every_reply_while_redis_moves_through_three_hosts() {
    let cluster = Cluster::start(Options::default()).unwrap();
    Scene::prepare(&cluster).unwrap();
    let scene = Scene::play(&cluster, 1, 3).unwrap();
    for to in [2, 3, 1] {
        let moved = cluster.migrate(&scene.redis, to).unwrap();
        assert!(moved["times"]["freeze_us"].as_u64().unwrap() > 0, "{moved}");
        assert!(
            moved["times"]["bytes"].as_u64().unwrap() > 1 << 20,
            "{moved}"
        );
        assert_eq!(host_of(&cluster, &scene.redis).unwrap(), format!("h{to}"));
        assert_eq!(cluster.address(&scene.redis).unwrap(), scene.address);
        scene.goes_on(&cluster).unwrap();
    }
    let gaps = scene.finish(&cluster).unwrap();
    // No move is free: a client that saw no pause was not watching.
    assert!(gaps.len() >= 3, "{gaps:?}");
}
