//! How a container's first process runs and what it may: the same on every host that it comes to.

use godwit_tests::testbed::{Cluster, Options, PATIENCE, wait_for};

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

/// Runs a script with these options and answers what it printed.
fn says(cluster: &Cluster, options: &[&str], script: &str) -> String {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(options);
    arguments.extend(["busybox", "sh", "-c", script]);
    cluster.ok(&arguments).unwrap()
}

/// Answers again and again, once for every line in a file that anybody appends to.
const ANSWERS: &str = "trap ask USR1; ask() { \
    grep -E '^(Seccomp|NoNewPrivs|CapBnd|CapEff|Uid):' /proc/self/status; \
    hostname; pwd; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmax; \
    ulimit -n; df -k /dev/shm /scratch | awk 'NR>1{print $2}'; \
    touch /x 2>&1; unshare -m true 2>&1; cat /scratch/kept; \
    ls -l /dev/nothing | awk '{print $5,$6}'; echo end; }; \
    echo kept >/scratch/kept; echo ready; while true; do sleep 0.05; done";

#[test]
fn what_a_process_is_and_may_is_the_same_after_a_move() {
    let cluster = cluster(2);
    let mut arguments = vec!["run", "-d", "--name", "who", "--host", "h1"];
    arguments.extend(["-h", "web-1", "-w", "/srv/work", "--read-only", "--init"]);
    arguments.extend(["--tmpfs", "/tmp", "--tmpfs", "/scratch:size=3m"]);
    arguments.extend(["--shm-size", "5m", "--ulimit", "nofile=100:200"]);
    arguments.extend(["--sysctl", "net.core.somaxconn=321"]);
    arguments.extend(["--sysctl", "kernel.shmmax=7654321"]);
    arguments.extend([
        "--cap-drop",
        "ALL",
        "--cap-add",
        "net_admin",
        "--cap-add",
        "KILL",
    ]);
    arguments.extend(["--security-opt", "no-new-privileges"]);
    arguments.extend([
        "--device",
        "/dev/null:/dev/nothing:r",
        "--label",
        "tier=front",
    ]);
    arguments.extend(["busybox", "sh", "-c", ANSWERS]);
    cluster.ok(&arguments).unwrap();
    cluster
        .wait_for_log("who", |text| text.contains("ready"))
        .unwrap();
    let ask = |times: usize| {
        cluster.ok(&["kill", "-s", "USR1", "who"]).unwrap();
        cluster
            .wait_for_log("who", |text| text.matches("end\n").count() == times)
            .unwrap();
        let log = cluster.logs("who").unwrap();
        let all: Vec<&str> = log.split("end\n").collect();
        all[times - 1].trim_start_matches("ready\n").to_owned()
    };
    let before = ask(1);
    println!("{before}");
    for expected in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapBnd:\t0000000000001020",
        "web-1\n/srv/work\n321\n7654321\n100\n5120\n3072\n",
        "Read-only file system",
        "kept",
        "1, 3",
    ] {
        assert!(before.contains(expected), "no `{expected}` in: {before}");
    }
    assert!(before.contains("unshare"), "{before}");
    cluster.migrate("who", 2).unwrap();
    assert_eq!(ask(2), before);
    cluster.migrate("who", 1).unwrap();
    assert_eq!(ask(3), before);
    assert!(
        cluster
            .ok(&["ps", "-f", "label=tier=front", "-q"])
            .unwrap()
            .len()
            == 12
    );
    assert_eq!(
        cluster.ok(&["ps", "-f", "label=tier=back", "-q"]).unwrap(),
        ""
    );
    // The reaper passes the signal on, and ends as its command does.
    cluster.ok(&["stop", "-t", "1", "who"]).unwrap();
    // A start finds the same, and what was in memory gone.
    cluster.ok(&["start", "who"]).unwrap();
    cluster
        .wait_for_log("who", |text| text.matches("ready").count() == 2)
        .unwrap();
    let again = ask(4);
    assert!(again.contains("web-1\n/srv/work\n321"), "{again}");
}

#[test]
fn an_orphan_is_reaped_by_the_reaper_here_and_there() {
    let cluster = cluster(2);
    let script = "while true; do (sleep 0.01 &) ; sleep 0.1; \
                  echo $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l); done";
    cluster
        .ok(&[
            "run", "-d", "--init", "--name", "reaped", "--host", "h1", "busybox", "sh", "-c",
            script,
        ])
        .unwrap();
    for host in [2, 1] {
        let lines = |cluster: &Cluster| cluster.logs("reaped").unwrap().lines().count();
        let before = lines(&cluster);
        wait_for("more lines", PATIENCE, || lines(&cluster) > before + 5).unwrap();
        cluster.migrate("reaped", host).unwrap();
    }
    let log = cluster.logs("reaped").unwrap();
    let left: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
    // One that ends while it is looked at, at most, and never more and more.
    assert!(left.iter().all(|zombies| *zombies <= 2), "{log}");
}

#[test]
fn options_are_understood_as_dockers() {
    let cluster = cluster(1);
    let file = cluster.dir().join("variables");
    std::fs::write(&file, "# comment\nA=file\nB=file\n").unwrap();
    let path = file.display().to_string();
    let said = says(
        &cluster,
        &["--env-file", &path, "-e", "B=flag"],
        "echo $A $B",
    );
    assert_eq!(said, "file flag");
    assert_eq!(says(&cluster, &["-u", "1000:7"], "id -u; id -g"), "1000\n7");
    let entry = [
        "run",
        "--rm",
        "--entrypoint",
        "echo",
        "busybox",
        "only",
        "this",
    ];
    assert_eq!(cluster.ok(&entry).unwrap(), "only this");
    let privileged = says(
        &cluster,
        &["--privileged"],
        "grep Seccomp: /proc/self/status",
    );
    assert_eq!(privileged, "Seccomp:\t0");
    let masked = says(
        &cluster,
        &[],
        "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l",
    );
    assert_eq!(masked, "0\n0");
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(
        says(&cluster, &unconfined, "grep Seccomp: /proc/self/status"),
        "Seccomp:\t0"
    );
    let profile = cluster.dir().join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#,
    )
    .unwrap();
    let own = format!("seccomp={}", profile.display());
    let said = says(&cluster, &["--security-opt", &own], "mkdir /y 2>&1 || true");
    assert!(said.contains("Function not implemented"), "{said}");
    let id_file = cluster.dir().join("id");
    let id_path = id_file.display().to_string();
    says(&cluster, &["--cidfile", &id_path], "true");
    assert_eq!(std::fs::read_to_string(&id_file).unwrap().len(), 64);
    let again = ["run", "--cidfile", &id_path, "busybox", "true"];
    assert!(cluster.refused(&again).unwrap().contains("--cidfile"));
    // A raw block device can't be opened, even by a node of one's own making.
    let said = says(&cluster, &[], "mknod /d c 1 1 && head -c 1 /d 2>&1 || true");
    assert!(
        said.contains("not permitted") || said.contains("ermission"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_refused_by_name_and_with_dockers_exit_codes() {
    let cluster = cluster(1);
    for (options, word) in [
        (&["--sysctl", "kernel.panic=1"][..], "kernel.panic"),
        (&["--sysctl", "net.core/../../x=1"], "net.core"),
        (&["--cap-add", "FLY"], "FLY"),
        (&["--device", "/etc/passwd"], "/etc/passwd"),
        (&["--device", "/dev/none-such"], "/dev/none-such"),
        (&["--ulimit", "nofile=2:1"], "nofile"),
        (&["--tmpfs", "/x:upperdir=/etc"], "upperdir"),
        (&["-u", "nobody-here"], "nobody-here"),
        (&["-h", "a b"], "a b"),
        (&["-w", "relative"], "relative"),
        (&["--memory", "1m"], "--memory"),
        (&["-m", "64m", "--memory-swap", "32m"], "--memory-swap"),
        (&["--cpuset-cpus", "4000"], "4000"),
        (&["--name", "a\u{7}b"], "name"),
        (&["--restart", "sometimes"], "sometimes"),
        (
            &["--no-healthcheck", "--health-cmd", "true"],
            "--no-healthcheck",
        ),
        (&["--constraint", "disk==ssd"], "disk==ssd"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(options);
        arguments.extend(["busybox", "true"]);
        let output = cluster.output(&arguments).unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{options:?}: {text}");
        assert!(text.contains(word), "{options:?}: {text}");
        assert!(!text.contains('\u{7}'), "{text:?}");
    }
    for (command, code) in [("none-such", 127), ("/etc", 126)] {
        let output = cluster
            .output(&["run", "--rm", "busybox", command])
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}");
    }
    let killed = cluster.output(&["run", "--rm", "busybox", "sh", "-c", "kill -9 $$; sleep 9"]);
    // The first process can't kill itself: the kernel protects it in its namespace.
    assert_eq!(killed.unwrap().status.code(), Some(0));
    assert_eq!(cluster.ok(&["ps", "-aq"]).unwrap(), "");
}

#[test]
fn a_constraint_holds_wherever_the_container_goes() {
    let cluster = cluster(3);
    for host in ["h2", "h3"] {
        cluster
            .ok(&["host", "update", "--label", "disk=ssd", host])
            .unwrap();
    }
    let run = [
        "run",
        "-d",
        "--name",
        "picky",
        "--constraint",
        "disk==ssd",
        "busybox",
        "sleep",
    ];
    let mut arguments = run.to_vec();
    arguments.push("1000");
    cluster.ok(&arguments).unwrap();
    let host = cluster.json(&["inspect", "picky"]).unwrap()["host"].clone();
    assert_ne!(host, "h1");
    let refused = cluster
        .refused(&["migrate", "picky", "--to", "h1"])
        .unwrap();
    assert!(
        refused.contains("`h1`") && refused.contains("disk==ssd"),
        "{refused}"
    );
    let other = if host == "h2" { 3 } else { 2 };
    cluster.migrate("picky", other).unwrap();
    let labels = cluster.ok(&["host", "ls", "--labels"]).unwrap();
    assert!(labels.contains("disk=ssd"), "{labels}");
}
