//! A session in a pseudo-terminal: a container with a terminal is started, left, attached to
//! again and moved, and is typed into all the while.

use std::{io::Write, process::Stdio};

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
}

#[test]
fn a_terminal_is_left_attached_to_and_moved_and_typed_into_all_the_while() {
    let cluster = cluster();
    let run = [
        "run", "-it", "--name", "shell", "--host", "h1", "busybox", "sh",
    ];
    let mut terminal = Terminal::start(&cluster, &run).unwrap();
    terminal.see("# ").unwrap();
    terminal
        .type_in("stty size; test -t 0 && echo is-a-$((1+1))-tty; tty\n")
        .unwrap();
    terminal.see("24 80").unwrap();
    terminal.see("is-a-2-tty").unwrap();
    terminal.see("/dev/pts/0").unwrap();
    terminal.resize(40, 100).unwrap();
    terminal.type_until("stty size\n", "40 100").unwrap();
    // Job control.
    terminal.type_in("sleep 1000\n").unwrap();
    terminal.see("sleep 1000").unwrap();
    terminal.type_until("\x1a", "Stopped").unwrap();
    terminal.type_in("jobs; kill %1; X=kept\n").unwrap();
    // Left.
    terminal.type_in("\x10\x11").unwrap();
    terminal.see("read escape sequence").unwrap();
    assert_eq!(terminal.end().unwrap().code(), Some(0));
    assert_eq!(
        cluster.json(&["inspect", "shell"]).unwrap()["status"]["state"],
        "running"
    );

    // Attached to again; it is the same shell.
    let mut terminal = Terminal::start(&cluster, &["attach", "shell"]).unwrap();
    terminal.type_until("echo X=$X\n", "X=kept").unwrap();
    // It moves while someone is attached, who types on.
    for to in [2, 1, 2] {
        cluster.migrate("shell", to).unwrap();
        assert_eq!(host_of(&cluster, "shell").unwrap(), format!("h{to}"));
        terminal
            .type_in(&format!("echo on-$((40+{to}))-$X\n"))
            .unwrap();
        terminal.see(&format!("on-{}-kept", 40 + to)).unwrap();
    }
    terminal.resize(33, 77).unwrap();
    terminal.type_until("stty size\n", "33 77").unwrap();
    terminal.type_in("sleep 1000\n").unwrap();
    terminal.type_until("\x03echo c=$?\n", "c=130").unwrap();
    terminal.type_in("exit 9\n").unwrap();
    assert_eq!(terminal.end().unwrap().code(), Some(9));
    // A terminal's log is a log.
    let log = cluster.logs("shell").unwrap();
    assert!(log.contains("on-42-kept"), "{log}");
}

#[test]
fn standard_input_goes_in_to_its_end_and_through_a_move() {
    let cluster = cluster();
    let mut child = cluster
        .godwit(&["run", "-i", "--host", "h1", "busybox", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (
            String::from_utf8_lossy(&output.stdout).trim(),
            output.status.code()
        ),
        ("1048576", Some(0)),
        "{output:?}"
    );

    // Lines of which none is lost or comes twice, whatever was in the pipe.
    let count = "i=0; while read line; do i=$((i+1)); test $line = $i || echo wrong $i $line; \
                 test $((i % 50)) = 0 && sleep 0.2; done; echo read $i";
    let mut child = cluster
        .godwit(&[
            "run", "-i", "--name", "reader", "--host", "h1", "busybox", "sh", "-c", count,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in 1..=600 {
        writeln!(stdin, "{line}").unwrap();
    }
    wait_for("the reader", PATIENCE, || {
        let view = cluster.json(&["inspect", "reader"]);
        view.is_ok_and(|view| view["status"]["state"] == "running")
    })
    .unwrap();
    cluster.migrate("reader", 2).unwrap();
    for line in 601..=1000 {
        writeln!(stdin, "{line}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (
            String::from_utf8_lossy(&output.stdout).trim(),
            output.status.code()
        ),
        ("read 1000", Some(0)),
        "{output:?}"
    );
}

#[test]
fn signals_of_the_command_line_are_passed_on() {
    let cluster = cluster();
    let script = "trap 'echo got it; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let child = cluster
        .godwit(&[
            "run", "--name", "trap", "--host", "h1", "busybox", "sh", "-c", script,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    cluster
        .wait_for_log("trap", |text| text.contains("ready"))
        .unwrap();
    cluster.migrate("trap", 2).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (
            String::from_utf8_lossy(&output.stdout).as_ref(),
            output.status.code()
        ),
        ("ready\ngot it\n", Some(3)),
        "{output:?}"
    );
}
