//! What can be known before a move is said before anything is stopped: descriptors that no
//! checkpoint can hold, and a destination without enough memory.

use godwit_tests::{
    scene::{host_of, last_migration},
    testbed::{Cluster, Options, list},
};
use serde_json::Value;

/// Insists that a move is refused for this reason, and a dry run says the same.
fn refused(cluster: &Cluster, container: &str, to: &str, words: &[&str]) -> String {
    let text = cluster
        .refused(&["migrate", container, "--to", to])
        .unwrap();
    let dry = [
        "--format",
        "json",
        "migrate",
        "--dry-run",
        container,
        "--to",
        to,
    ];
    let output = cluster.output(&dry).unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    println!("{text}\n{}", said["against"]);
    assert_eq!(list(&said["against"]).len(), 1, "{said}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
        assert!(
            said["against"].to_string().contains(word),
            "no `{word}` in: {said}"
        );
    }
    assert!(text.contains("hint: "), "{text}");
    // It was not even prepared.
    let last = last_migration(cluster).unwrap();
    assert_eq!(last["phase"], "aborted", "{last}");
    assert_eq!(last["times"]["steps"], Value::Array(Vec::new()), "{last}");
    let view = cluster.json(&["inspect", container]).unwrap();
    assert_eq!(
        (&view["host"], &view["status"]["state"]),
        (&"h1".into(), &"running".into())
    );
    text
}

#[test]
fn what_can_not_be_moved_and_what_does_not_fit_is_named_before_anything_is_stopped() {
    let cluster = Cluster::start(Options {
        hosts: 3,
        members: 1,
        agent_arguments: vec![(3, "--memory-reserve=1t".to_owned())],
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    for (kind, named) in [
        ("io-uring", "an io_uring"),
        ("userfaultfd", "a userfaultfd"),
        ("mptcp", "an `MPTCP` socket"),
    ] {
        let mut arguments = vec!["run", "-d", "--name", kind, "--host", "h1"];
        // The default filter would keep it from holding them.
        arguments.extend(["--security-opt", "seccomp=unconfined", "workload"]);
        arguments.extend(["/bin/godwit-workload", "hold", kind]);
        cluster.ok(&arguments).unwrap();
        cluster
            .wait_for_log(kind, |text| text.contains("ready"))
            .unwrap();
        let named = format!("(`godwit-workload`) has {named} on descriptor ");
        let words = ["host `h1`", "process ", &named, ", which can't be moved"];
        let text = refused(&cluster, kind, "h2", &words);
        assert!(
            text.contains("hint: have the program do without it"),
            "{text}"
        );
    }

    let mut arguments = vec!["run", "-d", "--name", "large", "--host", "h1", "workload"];
    arguments.extend(["/bin/godwit-workload", "memory", "--rss=64"]);
    cluster.ok(&arguments).unwrap();
    cluster
        .wait_for_log("large", |text| text.contains("ready"))
        .unwrap();
    let words = ["host `h3`: too little memory", "bytes needed, 0 free"];
    let text = refused(&cluster, "large", "h3", &words);
    let needed = text
        .split(": ")
        .find_map(|part| part.split_once(" bytes needed"));
    let needed: u64 = needed.unwrap().0.parse().unwrap();
    assert!((64 << 20..80 << 20).contains(&needed), "{needed}");
    let stopped = ["migrate", "large", "--to", "h3", "--mode", "stop"];
    assert!(
        cluster
            .refused(&stopped)
            .unwrap()
            .contains("too little memory")
    );
    cluster.migrate("large", 2).unwrap();
    assert_eq!(host_of(&cluster, "large").unwrap(), "h2");
}
