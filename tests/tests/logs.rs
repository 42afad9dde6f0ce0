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
        .ok(&["run", "-d", "--name", "c", "--host", "h1", "busybox", "sh", "-c", script])
        .unwrap();
    cluster
        .wait_for_log("c", |text| text.contains("late"))
        .unwrap();
    for to in [2, 1] {
        let logs = |options: &[&str]| cluster.ok(&[&["logs", "c"], options].concat()).unwrap();
        assert_eq!(logs(&["--tail", "1"]), "late");
        assert_eq!(logs(&["-n", "3"]), "line 5\nlate", "the other is an error's");
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
            "run", "-d", "--name", "count", "--host", "h1", "--log-opt", "max-size=16k",
            "--log-opt", "max-file=4", "workload", "/bin/godwit-workload", "count", "--pause", "2",
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
        lines
            .map(|line| line.unwrap().parse().unwrap())
            .collect()
    });
    for to in [2, 1, 2] {
        let before = last(&cluster);
        cluster.migrate("count", to).unwrap();
        wait_for("several files", PATIENCE, || last(&cluster) > before + 600).unwrap();
    }
    cluster.ok(&["stop", "count"]).unwrap();
    assert!(follower.wait().unwrap().success());
    let numbers = reader.join().unwrap();
    assert!(numbers.len() > 1800, "{}", numbers.len());
    for pair in numbers.windows(2) {
        assert_eq!(pair[0] + 1, pair[1], "a gap or a repeat");
    }
    // No more is kept than was asked for.
    let kept = cluster.logs("count").unwrap();
    assert!(kept.lines().count() < 1200, "{}", kept.lines().count());
    assert_eq!(
        kept.lines().last().unwrap().parse::<u64>().unwrap(),
        *numbers.last().unwrap()
    );
    let id = cluster.id("count").unwrap();
    let dir = cluster.host(2).dir.join("data/containers").join(&id);
    let mut files = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("log.json") {
            files += 1;
            assert!(entry.metadata().unwrap().len() <= 16 << 10);
        }
    }
    assert!((2..=4).contains(&files), "{files} files in {}", dir.display());
}

fn last(cluster: &Cluster) -> u64 {
    let text = cluster.ok(&["logs", "--tail", "1", "count"]).unwrap();
    text.parse().unwrap_or(0)
}
