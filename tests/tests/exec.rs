//! Programs started in a container that runs: what they are, what they say, and what becomes of
//! them when the container moves.

use std::{
    io::{Read, Write},
    process::{Child, Stdio},
};

use godwit_tests::{
    scene::host_of,
    terminal::Terminal,
    testbed::{Cluster, Options, PATIENCE, wait_for},
};

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    cluster
        .ok(&[
            "run",
            "-d",
            "--name",
            "box",
            "--host",
            "h1",
            "-e",
            "WHO=container",
            "--pids-limit",
            "64",
            "busybox",
            "sleep",
            "1000000",
        ])
        .unwrap();
    cluster
}

fn code_of(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = cluster.output(arguments).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn piped(cluster: &Cluster, arguments: &[&str]) -> Child {
    cluster
        .godwit(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Everything that exec does, on whatever host the container is.
fn works(cluster: &Cluster) {
    let sh = |script: &str| code_of(cluster, &["exec", "box", "sh", "-c", script]);
    assert_eq!(
        sh("echo out; echo err >&2; exit 7"),
        (Some(7), "out\n".into(), "err\n".into())
    );
    // The container's namespaces, cgroup, root and environment.
    let (code, said, _) =
        sh("echo $WHO; hostname; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid");
    let said: Vec<_> = said.lines().collect();
    assert_eq!((code, said[0]), (Some(0), "container"), "{said:?}");
    let view = cluster.json(&["inspect", "box"]).unwrap();
    assert_eq!(said[1], &view["id"].as_str().unwrap()[..12]);
    assert_eq!(said[2], said[3], "another pid namespace");
    let (_, groups, _) = sh("cat /proc/self/cgroup; echo; cat /proc/1/cgroup");
    let (own, init) = groups.split_once("\n\n").unwrap();
    assert_eq!(own.trim(), init.trim(), "another cgroup");

    let told = |arguments: &[&str]| code_of(cluster, &[&["exec"], arguments].concat());
    let (code, said, _) = told(&[
        "-u",
        "1000:1000",
        "-w",
        "/tmp",
        "-e",
        "A=b",
        "box",
        "sh",
        "-c",
        "id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status",
    ]);
    assert_eq!(code, Some(0));
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["1000", "1000", "/tmp", "b", "CapEff:", "0000000000000000"]
    );
    // What can't be started has Docker's codes, and a reason.
    let (code, _, said) = told(&["box", "no-such-program"]);
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("`no-such-program` not found"), "{said}");
    let (code, _, said) = told(&["box", "/etc/passwd"]);
    assert_eq!(code, Some(126), "{said}");
    let (code, _, said) = told(&["-w", "/nowhere", "box", "true"]);
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("/nowhere"), "{said}");
    let (code, _, said) = told(&["-u", "nobody-here", "box", "true"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody-here"), "{said}");
    let (code, ..) = sh("kill -TERM $$");
    assert_eq!(code, Some(143));

    // Standard input to its end, and much of it.
    let mut child = piped(cluster, &["exec", "-i", "box", "wc", "-c"]);
    let much = vec![b'x'; 3 << 20];
    child.stdin.take().unwrap().write_all(&much).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3145728");
    // Without `-i` there is none.
    assert_eq!(
        told(&["box", "cat"]),
        (Some(0), String::new(), String::new())
    );
    // Bytes as they are.
    let output = cluster
        .output(&["exec", "box", "printf", r"\377\000\376"])
        .unwrap();
    assert_eq!(output.stdout, [0xff, 0, 0xfe]);

    // Detached it goes on, and its child is the container's.
    cluster
        .ok(&[
            "exec",
            "-d",
            "box",
            "sh",
            "-c",
            "sleep 0; echo $$ > /tmp/detached",
        ])
        .unwrap();
    wait_for("what was detached", PATIENCE, || {
        sh("cat /tmp/detached && rm /tmp/detached").0 == Some(0)
    })
    .unwrap();
}

#[test]
fn programs_run_in_a_container_before_and_after_it_moved() {
    let cluster = cluster();
    works(&cluster);
    cluster.migrate("box", 2).unwrap();
    works(&cluster);
    cluster.ok(&["stop", "box"]).unwrap();
    let (code, _, said) = code_of(&cluster, &["exec", "box", "true"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("`box`") && said.contains("exited"), "{said}");
    let (code, _, said) = code_of(&cluster, &["exec", "nothing", "true"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("nothing"), "{said}");
}

#[test]
fn a_session_ends_with_a_clear_word_when_its_container_moves() {
    let cluster = cluster();
    let mut child = piped(&cluster, &["exec", "-i", "box", "sh"]);
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // What it made a daemon is the container's, and moves.
    stdin
        .write_all(b"setsid sleep 777 </dev/null >/dev/null 2>&1 &\nsleep 888 & echo here\n")
        .unwrap();
    let mut word = [0; 5];
    stdout.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"here\n");

    // Announced before.
    let estimate = cluster
        .ok(&["migrate", "box", "--to", "h2", "--dry-run"])
        .unwrap();
    assert!(estimate.contains("exec"), "{estimate}");

    cluster.migrate("box", 2).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(137), "{said}");
    for word in ["`box`", "host `h2`", "migration"] {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
    assert_eq!(host_of(&cluster, "box").unwrap(), "h2");
    let (_, processes, _) = code_of(&cluster, &["exec", "box", "ps"]);
    assert!(processes.contains("sleep 777"), "{processes}");
    assert!(!processes.contains("sleep 888"), "{processes}");
}

#[test]
fn a_terminal_of_a_session_has_its_size_and_its_signals() {
    let cluster = cluster();
    for to in [2, 1] {
        let mut terminal = Terminal::start(&cluster, &["exec", "-it", "box", "sh"]).unwrap();
        terminal.type_in("tty; stty size; echo $TERM\n").unwrap();
        terminal.see("/dev/pts/").unwrap();
        terminal.see("24 80").unwrap();
        terminal.see("xterm").unwrap();
        terminal.resize(50, 132).unwrap();
        terminal.type_until("stty size\n", "50 132").unwrap();
        terminal.type_in("sleep 1000\n").unwrap();
        terminal.see("sleep 1000").unwrap();
        terminal
            .type_until("\x03echo after=$?\n", "after=130")
            .unwrap();
        terminal.type_in("exit 5\n").unwrap();
        assert_eq!(terminal.end().unwrap().code(), Some(5));
        cluster.migrate("box", to).unwrap();
    }
    // Left by its keys it goes on.
    let mut terminal = Terminal::start(&cluster, &["exec", "-it", "box", "sh"]).unwrap();
    terminal.type_in("sleep 4321\n").unwrap();
    terminal.see("sleep 4321").unwrap();
    wait_for("the sleep", PATIENCE, || {
        code_of(&cluster, &["exec", "box", "ps"])
            .1
            .contains("sleep 4321")
    })
    .unwrap();
    terminal.type_in("\x10\x11").unwrap();
    assert_eq!(terminal.end().unwrap().code(), Some(0));
    assert!(
        code_of(&cluster, &["exec", "box", "ps"])
            .1
            .contains("sleep 4321")
    );
}
