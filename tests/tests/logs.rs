//! Logs: chosen lines, files that are rotated, and one who follows while the container moves.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use godwit_tests::testbed::{Cluster, Options, PATIENCE, wait_for};

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    cluster
}

#[test]
fn lines_are_chosen_by_number_and_time() {
    let cluster = cluster();
    let script = "for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2; sleep 2; echo late; \
                  sleep 1000000";
    cluster
        .ok(&[
            "run", "-d", "--name", "c", "--host", "h1", "busybox", "sh", "-c", script,
        ])
        .unwrap();
    cluster
        .wait_for_log("c", |text| text.contains("late"))
        .unwrap();
    // Nothing of what starts a container is in it.
    let all = cluster.godwit(&["logs", "c"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&all.stderr), "bad\n");
    for to in [2, 1] {
        let logs = |options: &[&str]| cluster.ok(&[&["logs", "c"], options].concat()).unwrap();
        assert_eq!(logs(&["--tail", "1"]), "late");
        assert_eq!(
            logs(&["-n", "3"]),
            "line 5\nlate",
            "the other is an error's"
        );
        assert_eq!(logs(&["--tail", "0"]), "");
        assert_eq!(logs(&["--tail", "all"]).lines().count(), 6);
        assert_eq!(logs(&["--since", "1h"]).lines().count(), 6);
        assert_eq!(logs(&["--until", "1h"]), "");
        // A second after the first and a second before the last.
        let timed = logs(&["-t"]);
        let times: Vec<&str> = timed
            .lines()
            .map(|line| line.split_once(' ').unwrap().0)
            .collect();
        assert_eq!(times.len(), 6);
        assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{times:?}");
        assert_eq!(logs(&["--since", times[5]]), "late");
        assert_eq!(logs(&["--until", times[4]]).lines().count(), 5);
        assert!(timed.lines().last().unwrap().ends_with(" late"));
        cluster.migrate("c", to).unwrap();
    }
    let refused = cluster.refused(&["logs", "--since", "then", "c"]).unwrap();
    assert!(refused.contains("`then`"), "{refused}");
}

#[test]
fn one_who_follows_sees_every_line_once_while_files_are_rotated_and_the_container_moves() {
    let cluster = cluster();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "count",
            "--host",
            "h1",
            "--log-opt",
            "max-size=16k",
            "--log-opt",
            "max-file=60",
            "workload",
            "/bin/godwit-workload",
            "count",
            "--pause",
            "2",
        ])
        .unwrap();
    cluster
        .wait_for_log("count", |text| text.lines().count() > 20)
        .unwrap();
    let mut follower = cluster
        .godwit(&["logs", "-f", "count"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || -> Vec<u64> {
        lines.map(|line| line.unwrap().parse().unwrap()).collect()
    });
    for to in [2, 1, 2] {
        let before = last(&cluster);
        cluster.migrate("count", to).unwrap();
        wait_for("several files", PATIENCE, || last(&cluster) > before + 600).unwrap();
    }
    cluster.ok(&["stop", "count"]).unwrap();
    assert!(follower.wait().unwrap().success());
    let numbers = reader.join().unwrap();
    for pair in numbers.windows(2) {
        assert_eq!(
            pair[0] + 1,
            pair[1],
            "a gap or a repeat in {}",
            numbers.len()
        );
    }
    assert_eq!((numbers[0], *numbers.last().unwrap()), (0, last(&cluster)));
    assert!(numbers.len() > 1800, "{}", numbers.len());
    let files = log_files(&cluster, 2, "count");
    assert!(
        files.len() > 5 && files.iter().all(|size| *size <= 16 << 10),
        "{files:?}"
    );
}

#[test]
fn no_more_is_kept_than_was_asked_for_however_much_is_written() {
    let cluster = cluster();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "yes",
            "--host",
            "h1",
            "--log-opt",
            "max-size=64k",
            "--log-opt",
            "max-file=3",
            "busybox",
            "sh",
            "-c",
            "i=0; while :; do i=$((i+1)); echo $i some text that takes its room; done",
        ])
        .unwrap();
    for (at, to) in [(1, 2), (2, 1)] {
        wait_for("full files", PATIENCE, || {
            log_files(&cluster, at, "yes").len() == 3
        })
        .unwrap();
        let sizes = log_files(&cluster, at, "yes");
        assert!(sizes.iter().sum::<u64>() <= 3 * (64 << 10), "{sizes:?}");
        cluster.migrate("yes", to).unwrap();
    }
    cluster.ok(&["stop", "yes"]).unwrap();
    let text = cluster.logs("yes").unwrap();
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| line.split_once(' ').unwrap().0.parse().unwrap())
        .collect();
    assert!(numbers[0] > 1 && numbers.len() > 300, "{}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

/// The sizes of a container's log files on a host.
fn log_files(cluster: &Cluster, host: u8, container: &str) -> Vec<u64> {
    let id = cluster.id(container).unwrap();
    let dir = cluster.host(host).dir.join("data/containers").join(&id);
    let entries = std::fs::read_dir(&dir).unwrap();
    entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log.json"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .collect()
}

fn last(cluster: &Cluster) -> u64 {
    let text = cluster.ok(&["logs", "--tail", "1", "count"]).unwrap();
    text.parse().unwrap()
}
