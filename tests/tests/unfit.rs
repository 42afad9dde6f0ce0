//! A destination without room or without CRIU is told so, and what runs goes on where it is.

use std::path::PathBuf;

use godwit_tests::{
    command::run,
    scene::{host_of, last_migration},
    testbed::{Cluster, Options, list},
};

const COUNT: [&str; 3] = ["workload", "/bin/godwit-workload", "count"];

fn goes_on(cluster: &Cluster) {
    let before = cluster.logs("count").unwrap().lines().count();
    cluster
        .wait_for_log("count", |text| text.lines().count() > before + 20)
        .unwrap();
    assert_eq!(host_of(cluster, "count").unwrap(), "h1");
}

#[test]
fn a_destination_without_room_or_without_criu_is_named_and_the_container_goes_on() {
    let cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        small: vec![(2, 128 << 20)],
        agent_criu: vec![(3, PathBuf::from("/nonexistent/criu"))],
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
        .ok(&[
            &["run", "-d", "--name", "count", "--host", "h1"],
            &COUNT[..],
        ]
        .concat())
        .unwrap();
    goes_on(&cluster);

    // Full but for half a MiB: the container's memory alone is more.
    let host = cluster.host(2);
    let data = host.dir.join("data");
    let fill = format!(
        "cd {} && {{ dd if=/dev/zero of=filler bs=64k 2>/dev/null || true; }} && \
         truncate -s -524288 filler",
        data.display()
    );
    run(host.command("sh", &["-ec", &fill])).unwrap();
    let text = cluster
        .refused(&["migrate", "count", "--to", "h2"])
        .unwrap();
    for word in [
        "host `h2`",
        "no room",
        "bytes needed",
        "hint: ",
        "godwit host ls",
    ] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    assert!(!text.contains("is stopped on"), "it was frozen: {text}");
    assert_eq!(last_migration(&cluster).unwrap()["phase"], "aborted");
    goes_on(&cluster);

    // CRIU missing there, and missing here.
    let text = cluster
        .refused(&["migrate", "count", "--to", "h3"])
        .unwrap();
    for word in [
        "host `h3`",
        "/nonexistent/criu",
        "hint: `godwit host ls -v`",
    ] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    goes_on(&cluster);
    let listed = cluster.output(&["host", "ls", "-v"]).unwrap();
    let listed = String::from_utf8_lossy(&listed.stderr);
    assert!(
        listed.contains("h3: ") && listed.contains("/nonexistent/criu"),
        "{listed}"
    );
    cluster
        .ok(&[
            &["run", "-d", "--name", "there", "--host", "h3"],
            &COUNT[..],
        ]
        .concat())
        .unwrap();
    let text = cluster
        .refused(&["migrate", "there", "--to", "h1"])
        .unwrap();
    assert!(
        text.contains("host `h3`") && text.contains("hint:"),
        "{text}"
    );

    // Room again: it moves.
    run(host.command("rm", &[&data.join("filler").display().to_string()])).unwrap();
    cluster.migrate("count", 2).unwrap();
    assert_eq!(host_of(&cluster, "count").unwrap(), "h2");
    assert_eq!(list(&cluster.json(&["ps"]).unwrap()).len(), 2);
}
