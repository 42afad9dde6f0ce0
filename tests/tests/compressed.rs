//! Memory that is compressed on its way, when that pays, and arrives as it was.

use godwit_tests::{
    mover::{Mover, ended},
    testbed::{Cluster, Options},
};

const MIB: u64 = 1 << 20;

#[test]
fn memory_that_compresses_takes_less_of_a_narrow_link_and_is_whole() {
    let verify = |host| (host, "--verify-memory".to_owned());
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        agent_arguments: vec![verify(1), verify(2)],
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let memory = ["--rss=24", "--processes=2", "--words=64", "--rate=1"];
    let mover = Mover::play(&cluster, "text", 1, &[], &memory).unwrap();
    let bytes = |to, options: &[&str]| {
        let id = mover.begin(&cluster, to, options).unwrap();
        let moved = ended(&cluster, &id).unwrap();
        assert_eq!(moved["phase"], "done", "{moved}");
        assert_eq!(mover.verify(&cluster).unwrap(), 2 * 24 * 256);
        moved["times"]["bytes"].as_u64().unwrap()
    };
    let narrow = ["--max-bandwidth", "20M", "--max-downtime", "10s"];
    let plain = bytes(2, &[&narrow[..], &["--compress", "off"]].concat());
    let auto = bytes(1, &narrow);
    let always = bytes(2, &["--compress", "on"]);
    assert!(plain > 48 * MIB, "{plain} bytes as it is");
    assert!(auto < plain / 2, "{auto} bytes by itself, {plain} as it is");
    assert!(
        always < plain / 4,
        "{always} bytes compressed, {plain} as it is"
    );
    mover.dismiss(&cluster).unwrap();
}
