//! The verbs that people type all day: each before and after the container was moved.

use std::{
    process::{Command, Stdio},
    thread,
};

use anyhow::Result;
use godwit_tests::testbed::{Cluster, Options, PATIENCE, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn cluster(hosts: u8) -> Cluster {
    let cluster = Cluster::start(Options {
        hosts,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    cluster
}

fn inspect(cluster: &Cluster, name: &str) -> Value {
    cluster.json(&["inspect", name]).unwrap()
}

fn state(cluster: &Cluster, name: &str) -> String {
    let view = inspect(cluster, name);
    view["status"]["state"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn wait_state(cluster: &Cluster, name: &str, wanted: &str) {
    wait_for(&format!("`{name}` {wanted}"), PATIENCE, || {
        state(cluster, name) == wanted
    })
    .unwrap();
}

/// How many lines it has printed.
fn lines(cluster: &Cluster, name: &str) -> usize {
    cluster.logs(name).unwrap().lines().count()
}

fn grows(cluster: &Cluster, name: &str) -> Result<()> {
    let before = lines(cluster, name);
    wait_for("more output", PATIENCE, || {
        lines(cluster, name) > before + 2
    })
}

const COUNT: &str = "trap 'exit 3' TERM; i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";

#[test]
fn a_container_is_created_started_and_started_again_with_the_files_it_left() {
    let cluster = cluster(2);
    let id = cluster
        .ok(&[
            "create",
            "--name",
            "notes",
            "--host",
            "h1",
            "busybox",
            "sh",
            "-c",
            &format!("echo run >>/notes; cat /notes; {COUNT}"),
        ])
        .unwrap();
    assert_eq!(id.len(), 64);
    assert_eq!(state(&cluster, "notes"), "created");
    assert_eq!(cluster.ok(&["ps", "-q"]).unwrap(), "");
    assert_eq!(cluster.ok(&["ps", "-aq"]).unwrap(), id[..12]);
    let refused = cluster.refused(&["pause", "notes"]).unwrap();
    assert!(refused.contains("`notes` is created"), "{refused}");
    let refused = cluster
        .refused(&["migrate", "notes", "--to", "h2"])
        .unwrap();
    assert!(refused.contains("not running (created)"), "{refused}");

    assert_eq!(cluster.ok(&["start", "notes"]).unwrap(), "notes");
    grows(&cluster, "notes").unwrap();
    cluster.migrate("notes", 2).unwrap();
    grows(&cluster, "notes").unwrap();
    // The stop signal is heard on the other host, too.
    let said = cluster.ok(&["stop", "notes"]).unwrap();
    assert!(said.contains("code 3"), "{said}");
    assert_eq!(cluster.ok(&["wait", "notes"]).unwrap(), "3");
    cluster.ok(&["start", "notes"]).unwrap();
    cluster
        .wait_for_log("notes", |text| text.matches("run\n").count() >= 3)
        .unwrap();
    // Twice is once.
    cluster.ok(&["start", "notes"]).unwrap();
    cluster.migrate("notes", 1).unwrap();
    cluster.ok(&["restart", "-t", "1", "notes"]).unwrap();
    cluster
        .wait_for_log("notes", |text| text.matches("run\n").count() >= 6)
        .unwrap();
    assert_eq!(inspect(&cluster, "notes")["host"], "h1");

    cluster.ok(&["rename", "notes", "book"]).unwrap();
    let refused = cluster.refused(&["rename", "book", "bo\u{1b}ok"]).unwrap();
    assert!(!refused.contains('\u{1b}'), "{refused}");
    cluster.migrate("book", 2).unwrap();
    let refused = cluster.refused(&["rm", "book"]).unwrap();
    assert!(refused.contains("is running"), "{refused}");
    cluster.ok(&["rm", "-f", "book"]).unwrap();
    assert_eq!(cluster.ok(&["ps", "-aq"]).unwrap(), "");
    assert!(cluster.processes_of(&id).unwrap().is_empty());
}

#[test]
fn a_paused_container_stands_still_and_is_not_moved() {
    let cluster = cluster(2);
    cluster
        .ok(&[
            "run", "-d", "--name", "tick", "--host", "h1", "busybox", "sh", "-c", COUNT,
        ])
        .unwrap();
    for host in [1, 2] {
        grows(&cluster, "tick").unwrap();
        cluster.ok(&["pause", "tick"]).unwrap();
        assert_eq!(state(&cluster, "tick"), "paused");
        let ps = cluster.ok(&["ps"]).unwrap();
        assert!(ps.contains("paused"), "{ps}");
        let before = lines(&cluster, "tick");
        thread::sleep(std::time::Duration::from_millis(400));
        assert_eq!(lines(&cluster, "tick"), before);
        let other = format!("h{}", 3 - host);
        let refused = cluster
            .refused(&["migrate", "tick", "--to", &other])
            .unwrap();
        assert!(
            refused.contains("`tick` is not running (paused)") && refused.contains("unpause"),
            "{refused}"
        );
        let refused = cluster.refused(&["start", "tick"]).unwrap();
        assert!(refused.contains("paused"), "{refused}");
        cluster.ok(&["unpause", "tick"]).unwrap();
        grows(&cluster, "tick").unwrap();
        if host == 1 {
            cluster.migrate("tick", 2).unwrap();
        }
    }
    // A paused one can be stopped, and killed.
    cluster.ok(&["pause", "tick"]).unwrap();
    cluster.ok(&["stop", "-t", "5", "tick"]).unwrap();
    assert_eq!(state(&cluster, "tick"), "exited");
    cluster.ok(&["start", "tick"]).unwrap();
    cluster.ok(&["pause", "tick"]).unwrap();
    cluster.ok(&["kill", "tick"]).unwrap();
    assert_eq!(cluster.ok(&["wait", "tick"]).unwrap(), "137");
}

#[test]
fn a_signal_reaches_the_first_process_wherever_it_is() {
    let cluster = cluster(2);
    let script = "trap 'echo heard' USR1; echo ready; while true; do sleep 0.05; done";
    cluster
        .ok(&[
            "run", "-d", "--name", "ear", "--host", "h1", "busybox", "sh", "-c", script,
        ])
        .unwrap();
    cluster
        .wait_for_log("ear", |text| text.contains("ready"))
        .unwrap();
    cluster.ok(&["kill", "-s", "USR1", "ear"]).unwrap();
    cluster
        .wait_for_log("ear", |text| text.matches("heard").count() == 1)
        .unwrap();
    cluster.migrate("ear", 2).unwrap();
    cluster.ok(&["kill", "-s", "SIGUSR1", "ear"]).unwrap();
    cluster
        .wait_for_log("ear", |text| text.matches("heard").count() == 2)
        .unwrap();
    let refused = cluster.refused(&["kill", "-s", "NOISE", "ear"]).unwrap();
    assert!(refused.contains("NOISE"), "{refused}");
    let waits = cluster
        .godwit(&["wait", "ear"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.ok(&["kill", "ear"]).unwrap();
    let waited = waits.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&waited.stdout), "137\n");
    let refused = cluster.refused(&["kill", "ear"]).unwrap();
    assert!(refused.contains("not running"), "{refused}");
}

#[test]
fn of_two_opposite_orders_one_wins_and_the_other_is_told() {
    let cluster = cluster(1);
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "torn",
            "busybox",
            "sh",
            "-c",
            "trap 'echo ending; sleep 6; exit 0' TERM; echo ready; while true; do sleep 0.05; done",
        ])
        .unwrap();
    cluster
        .wait_for_log("torn", |text| text.contains("ready"))
        .unwrap();
    let mut stop = spawn(cluster.godwit(&["stop", "-t", "60", "torn"]));
    cluster
        .wait_for_log("torn", |text| text.contains("ending"))
        .unwrap();
    let last = cluster.refused(&["pause", "torn"]).unwrap();
    assert!(
        last.contains("`torn` is being stopped by another request") && last.contains("hint: "),
        "{last}"
    );
    let refused = cluster.refused(&["restart", "torn"]).unwrap();
    assert!(refused.contains("being stopped"), "{refused}");
    assert!(stop.wait().unwrap().success());
    assert_eq!(state(&cluster, "torn"), "exited");
}

fn spawn(mut command: Command) -> std::process::Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

#[test]
fn a_policy_starts_again_what_has_ended_here_and_where_it_has_moved() {
    let mut cluster = cluster(2);
    let script =
        "echo run; trap 'exit 0' TERM; [ -e /gone ] && exit 5; while true; do sleep 0.05; done";
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "phoenix",
            "--restart",
            "always",
            "--host",
            "h1",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    let restarts = |cluster: &Cluster| {
        inspect(cluster, "phoenix")["details"]["restarts"]
            .as_u64()
            .unwrap_or(0)
    };
    let kill_inside = |cluster: &Cluster| {
        let id = cluster.id("phoenix").unwrap();
        wait_state(cluster, "phoenix", "running");
        kill_all(&cluster.processes_of(&id).unwrap());
    };
    kill_inside(&cluster);
    wait_for("a first restart", PATIENCE, || restarts(&cluster) == 1).unwrap();
    wait_state(&cluster, "phoenix", "running");
    cluster.migrate("phoenix", 2).unwrap();
    assert_eq!(restarts(&cluster), 1, "the count moves along");
    kill_inside(&cluster);
    wait_for("a second restart", PATIENCE, || restarts(&cluster) == 2).unwrap();
    wait_state(&cluster, "phoenix", "running");
    assert_eq!(inspect(&cluster, "phoenix")["host"], "h2");

    // Without a controller.
    let id = cluster.id("phoenix").unwrap();
    let before = cluster.processes_of(&id).unwrap();
    cluster.kill(1, "godwit-controller").unwrap();
    kill_all(&before);
    wait_for("a third run", PATIENCE, || {
        let now = cluster.processes_of(&id).unwrap_or_default();
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
    })
    .unwrap();
    cluster.start_member(1, false).unwrap();
    cluster.wait_for_hosts(2).unwrap();
    wait_for("the third restart", PATIENCE, || restarts(&cluster) == 3).unwrap();

    // By an agent that was away when it ended.
    cluster.kill(2, "godwit-agent").unwrap();
    kill_all(&cluster.processes_of(&id).unwrap());
    cluster.start_agent(2, &[], false).unwrap();
    cluster.wait_for_hosts(2).unwrap();
    wait_for("a restart by the next agent", PATIENCE, || {
        restarts(&cluster) == 4 && state(&cluster, "phoenix") == "running"
    })
    .unwrap();

    // What is stopped stays down, whatever its policy.
    cluster.ok(&["stop", "-t", "5", "phoenix"]).unwrap();
    assert_eq!(state(&cluster, "phoenix"), "exited");
    thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(state(&cluster, "phoenix"), "exited");
    cluster.ok(&["start", "phoenix"]).unwrap();
    assert_eq!(restarts(&cluster), 0, "somebody started it");
}

fn kill_all(pids: &[i32]) {
    for pid in pids {
        let pid = nix::unistd::Pid::from_raw(*pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn failures_are_started_again_so_often_and_no_more() {
    let cluster = cluster(1);
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "twice",
            "--restart",
            "on-failure:2",
            "busybox",
            "sh",
            "-c",
            "echo run; exit 9",
        ])
        .unwrap();
    wait_for("the last end", PATIENCE, || {
        let view = inspect(&cluster, "twice");
        view["status"]["state"] == "exited" && view["details"]["restarts"] == 2
    })
    .unwrap();
    assert_eq!(cluster.logs("twice").unwrap().matches("run").count(), 3);
    assert_eq!(inspect(&cluster, "twice")["status"]["exit"]["code"], 9);
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "well",
            "--restart",
            "on-failure",
            "busybox",
            "true",
        ])
        .unwrap();
    assert_eq!(cluster.ok(&["wait", "well"]).unwrap(), "0");
    wait_state(&cluster, "well", "exited");
    let refused = cluster
        .refused(&["run", "--rm", "--restart", "always", "busybox", "true"])
        .unwrap();
    assert!(
        refused.contains("--rm") && refused.contains("--restart"),
        "{refused}"
    );
}

#[test]
fn what_is_to_be_removed_at_its_end_is_gone_wherever_that_was() {
    let cluster = cluster(2);
    let output = cluster
        .output(&[
            "run",
            "--rm",
            "busybox",
            "sh",
            "-c",
            "echo last words; exit 4",
        ])
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "last words\n");
    assert_eq!(cluster.ok(&["ps", "-aq"]).unwrap(), "");
    cluster
        .ok(&[
            "run", "-d", "--rm", "--name", "brief", "--host", "h1", "busybox", "sh", "-c", COUNT,
        ])
        .unwrap();
    grows(&cluster, "brief").unwrap();
    cluster.migrate("brief", 2).unwrap();
    cluster.ok(&["kill", "-s", "TERM", "brief"]).unwrap();
    wait_for("its removal", PATIENCE, || {
        cluster.ok(&["ps", "-aq"]).is_ok_and(|ids| ids.is_empty())
    })
    .unwrap();
}

#[test]
fn what_its_host_lost_is_started_again_by_the_leader() {
    let mut cluster = cluster(2);
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "found",
            "--restart",
            "always",
            "--host",
            "h1",
            "busybox",
            "sh",
            "-c",
            "echo run; while true; do sleep 0.05; done",
        ])
        .unwrap();
    cluster
        .wait_for_log("found", |text| text.contains("run"))
        .unwrap();
    cluster.migrate("found", 2).unwrap();
    // As after a reboot: nothing runs, and nothing on the host knows how it ended.
    let id = cluster.id("found").unwrap();
    cluster.kill(2, "godwit-agent").unwrap();
    let before = cluster.processes_of(&id).unwrap();
    cluster.kill(2, "godwit-shim").unwrap();
    for pid in before {
        // The `sleep` of that moment has ended by itself.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    std::fs::remove_dir_all(cluster.host(2).dir.join("run/shims")).unwrap();
    cluster.start_agent(2, &[], false).unwrap();
    cluster
        .wait_for_log("found", |text| text.matches("run").count() == 2)
        .unwrap();
    wait_state(&cluster, "found", "running");
    assert_eq!(inspect(&cluster, "found")["host"], "h2");
    // One copy: its shell, and at most the `sleep` of the moment.
    assert!(cluster.processes_of(&id).unwrap().len() <= 2);
}
