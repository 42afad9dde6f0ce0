//! The agent as a daemon: its settings file, its health, its socket on the machine itself.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

use godwit_tests::testbed::{Cluster, Options, wait_for};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PORT: u16 = 7790;

/// The status line and the body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let asked = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        })
        .unwrap_or_else(|| panic!("no `{name}` in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn through(cluster: &Cluster, socket: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(&cluster.programs().godwit)
        .arg(format!("--host=unix://{}", socket.display()))
        .args(arguments)
        .env_remove("GODWIT_CONFIG")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn an_agent_says_how_it_is_takes_new_settings_and_serves_this_machine() {
    let dir = std::env::temp_dir().join(format!("godwit-daemon-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let (settings, socket) = (dir.join("agent.toml"), dir.join("godwit.sock"));
    let mut cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    let address = cluster.host(1).address.clone();
    let admin = cluster.admin_dir();
    let write = |more: &str| {
        let text = format!(
            "metrics = \"{address}:{PORT}\"\nadmin = \"{}\"\nsocket = \"{}\"\n{more}",
            admin.display(),
            socket.display(),
        );
        fs::write(&settings, text).unwrap();
    };
    write("");
    let with = [("GODWIT_SETTINGS".to_owned(), settings.display().to_string())];

    // What is wrong is said before anything is started.
    let check = |cluster: &Cluster| {
        let mut command = cluster.agent_command(1);
        let output = command.arg("check").envs(with.clone()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (fine, said) = check(&cluster);
    assert!(fine && said.contains("godwit://testbed/host/h1"), "{said}");
    write("memory-reserv = \"2g\"\n");
    let (fine, said) = check(&cluster);
    assert!(!fine, "{said}");
    assert!(
        said.contains(
            "agent.toml` line 4: there is no key `memory-reserv`: did you mean `memory-reserve`?"
        ),
        "{said}"
    );
    write("");

    cluster.kill(1, "godwit-agent").unwrap();
    cluster.start_agent(1, &with, false).unwrap();
    cluster.wait_for_hosts(1).unwrap();
    let health = format!("{address}:{PORT}");
    assert!(get(&health, "/healthz").0.contains("200"));
    wait_for("readiness", Duration::from_secs(30), || {
        get(&health, "/readyz").0.contains("200")
    })
    .unwrap();
    let (_, metrics) = get(&health, "/metrics");
    assert_eq!(value(&metrics, "godwit_agent_session"), 1.0);
    assert_eq!(
        value(&metrics, "godwit_agent_instances{state=\"running\"}"),
        0.0
    );
    assert!(value(&metrics, "godwit_agent_memory_free_bytes") > 0.0);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");

    // Without credentials of its own the command line works by the socket.
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o660 || mode == 0o600, "{mode:o}");
    let (fine, said) = through(&cluster, &socket, &["host", "ls"]);
    assert!(fine && said.contains("h1"), "{said}");
    cluster.load_workload().unwrap();
    let (fine, said) = through(
        &cluster,
        &socket,
        &[
            "run",
            "-d",
            "--name",
            "count",
            "workload",
            "/bin/godwit-workload",
            "count",
        ],
    );
    assert!(fine, "{said}");
    wait_for(
        "the container in the metrics",
        Duration::from_secs(30),
        || {
            let (_, metrics) = get(&health, "/metrics");
            value(&metrics, "godwit_agent_instances{state=\"running\"}") == 1.0
        },
    )
    .unwrap();

    // A mistake in the file leaves everything as it is; then it takes over what can change.
    let hang_up = |cluster: &Cluster| {
        for pid in cluster.host(1).processes("godwit-agent").unwrap() {
            kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
        }
    };
    let log = cluster.host(1).dir.join("agent.log");
    let logged = |text: &str| {
        wait_for(text, Duration::from_secs(30), || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains(text))
        })
        .unwrap();
    };
    write("memory-reserve = \"much\"\n");
    hang_up(&cluster);
    logged("settings stay as they are");
    write("memory-reserve = \"900t\"\ncgroup-parent = \"elsewhere\"\n");
    hang_up(&cluster);
    logged("settings were read again");
    let (_, metrics) = get(&health, "/metrics");
    assert_eq!(value(&metrics, "godwit_agent_memory_free_bytes"), 0.0);
    assert_eq!(
        value(&metrics, "godwit_agent_instances{state=\"running\"}"),
        1.0
    );

    let (fine, said) = through(&cluster, &dir.join("none.sock"), &["ps"]);
    assert!(!fine && said.contains("none.sock"), "{said}");
    drop(cluster);
    fs::remove_dir_all(&dir).unwrap();
}
