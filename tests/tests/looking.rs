//! What can be seen of a container from anywhere: its processes, what it uses and changed, and
//! what is known of it; before and after it moved.

use godwit_tests::testbed::{Cluster, Options, PATIENCE, list, wait_for};

fn sees(cluster: &Cluster, host: &str) {
    // Its own process ids, which are the same everywhere.
    let top = cluster.ok(&["top", "busy"]).unwrap();
    let rows: Vec<Vec<&str>> = top
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..4], ["UID", "PID", "PPID", "TTY"], "{top}");
    assert_eq!(rows[1][..4], ["0", "1", "0", "?"], "{top}");
    assert!(
        top.contains("while :; do") && top.contains("sleep 555"),
        "{top}"
    );

    let stats = cluster
        .ok(&["stats", "--no-stream", "--format", "{{json .}}", "busy"])
        .unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(
        (&stats["Name"], &stats["Host"]),
        (&"busy".into(), &host.into())
    );
    let percent = |key: &str| -> f64 {
        let text = stats[key].as_str().unwrap();
        text.trim_end_matches('%').parse().unwrap()
    };
    assert!(percent("CPUPerc") > 0.0, "{stats}");
    assert!((0.0..100.0).contains(&percent("MemPerc")), "{stats}");
    let memory = stats["MemUsage"].as_str().unwrap();
    assert!(memory.ends_with("/ 64.0 MiB"), "{stats}");
    let pids: u64 = stats["PIDs"].as_str().unwrap().parse().unwrap();
    assert!(pids >= 2, "{stats}");
    let table = cluster.ok(&["stats", "--no-stream"]).unwrap();
    assert!(table.contains("CPU %") && table.contains("busy"), "{table}");

    let diff = cluster.ok(&["diff", "busy"]).unwrap();
    let diff: Vec<&str> = diff.lines().collect();
    for line in [
        "A /new",
        "A /new/file",
        "C /etc",
        "C /etc/passwd",
        "D /bin/ls",
    ] {
        assert!(diff.contains(&line), "no `{line}` in {diff:?}");
    }

    let said = |format: &str| {
        cluster
            .ok(&["inspect", "--format", format, "busy"])
            .unwrap()
    };
    assert_eq!(said("{{.State.Status}} {{.State.Running}}"), "running true");
    assert_eq!(
        said("{{.Name}} on {{.Node.Name}}"),
        format!("/busy on {host}")
    );
    assert_eq!(said("{{.HostConfig.Memory}}"), (64 << 20).to_string());
    assert_eq!(
        said("{{.NetworkSettings.IPAddress}}"),
        cluster.address("busy").unwrap()
    );
    assert_eq!(said("{{index .Config.Cmd 0}}"), "sh");
    let refused = cluster
        .refused(&["inspect", "--format", "{{.No.Such}}", "busy"])
        .unwrap();
    assert!(refused.contains("{{.No.Such}}"), "{refused}");
}

#[test]
fn a_container_is_seen_alike_before_and_after_it_moved() {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    let script = "mkdir /new; echo x > /new/file; echo >> /etc/passwd; rm /bin/ls; \
                  sleep 555 & echo ready; while :; do :; done";
    cluster
        .ok(&[
            "run", "-d", "--name", "busy", "--host", "h1", "--memory", "64m", "busybox", "sh",
            "-c", script,
        ])
        .unwrap();
    cluster
        .wait_for_log("busy", |text| text.contains("ready"))
        .unwrap();
    sees(&cluster, "h1");
    cluster.migrate("busy", 2).unwrap();
    sees(&cluster, "h2");

    // Of one that has ended its files can be seen still.
    cluster.ok(&["stop", "busy"]).unwrap();
    let diff = cluster.ok(&["diff", "busy"]).unwrap();
    assert!(diff.contains("A /new/file"), "{diff}");
    let refused = cluster.refused(&["top", "busy"]).unwrap();
    assert!(refused.contains("not running"), "{refused}");
    wait_for("no container that runs", PATIENCE, || {
        let views = cluster.json(&["ps"]).unwrap();
        list(&views).is_empty()
    })
    .unwrap();
}
