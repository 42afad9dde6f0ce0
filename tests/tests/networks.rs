//! Networks of one host as Docker has them: published ports, the host's network, another
//! container's.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use godwit_tests::{
    scene::{SOON, host_of},
    testbed::{Cluster, Options, PATIENCE, wait_for},
};
use nix::sched::CloneFlags;

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let image = cluster.programs().image("busybox");
    cluster.load_image(&image).unwrap();
    cluster
}

fn echo(cluster: &Cluster, name: &str, flags: &[&str]) {
    let mut line = vec!["run", "-d", "--name", name];
    line.extend(flags);
    line.extend(["workload", "/bin/godwit-workload", "echo", "7"]);
    cluster.ok(&line).unwrap();
    cluster
        .wait_for_log(name, |text| text.contains("ready"))
        .unwrap();
}

fn outside(cluster: &Cluster, host: u8, port: u16) -> SocketAddr {
    let address = &cluster.host(host).address;
    format!("{address}:{port}").parse().unwrap()
}

fn over_tcp(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"over tcp")?;
    let mut said = [0; 8];
    stream.read_exact(&mut said)?;
    ensure!(said == *b"over tcp", "{said:?}");
    Ok(())
}

fn over_udp(to: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"over udp", to)?;
    let mut said = [0; 16];
    let (length, _) = socket.recv_from(&mut said)?;
    ensure!(said[..length] == *b"over udp", "{said:?}");
    Ok(())
}

/// In a host's network namespace.
fn on_host<T: Send + 'static>(
    cluster: &Cluster,
    host: u8,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    inside(cluster.host(host).pid(), work)
}

/// In a process's network namespace.
fn inside<T: Send + 'static>(
    pid: i32,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let done = thread::spawn(move || -> Result<T> {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).context("setns")?;
        work()
    });
    done.join().map_err(|_| anyhow!("it panicked"))?
}

/// Published on this host, over every way.
fn is_published(cluster: &Cluster, host: u8) {
    let to = outside(cluster, host, 8080);
    wait_for("an answer of the published port", PATIENCE, || {
        over_tcp(to).is_ok()
    })
    .unwrap();
    let to = outside(cluster, host, 9000);
    wait_for("an answer over udp", PATIENCE, || over_udp(to).is_ok()).unwrap();
    for port in [8080, 8081] {
        let local = SocketAddr::from(([127, 0, 0, 1], port));
        on_host(cluster, host, move || over_tcp(local)).unwrap();
    }
    // That one is for the host itself.
    over_tcp(outside(cluster, host, 8081)).unwrap_err();
    // From a container of the same network, by the host's address.
    let address = &cluster.host(host).address;
    let script = format!("echo from inside | nc -w 3 {address} 8080");
    let host = format!("h{host}");
    let mut line = vec!["run", "--host", &host, "busybox", "sh", "-c"];
    line.push(&script);
    let said = cluster.ok(&line).unwrap();
    assert_eq!(said, "from inside");
}

fn is_not_published(cluster: &Cluster, host: u8) {
    let to = outside(cluster, host, 8080);
    wait_for("nobody at the port", PATIENCE, || over_tcp(to).is_err()).unwrap();
}

#[test]
fn published_ports_follow_their_container_and_one_that_is_taken_is_named() {
    let mut cluster = cluster();
    let flags = ["-p", "8080:7", "-p", "127.0.0.1:8081:7", "-p", "9000:7/udp"];
    echo(&cluster, "echo", &[&["--host", "h1"], &flags[..]].concat());
    is_published(&cluster, 1);
    is_not_published(&cluster, 2);
    let said = cluster.ok(&["port", "echo"]).unwrap();
    assert_eq!(
        said,
        "7/tcp -> 0.0.0.0:8080\n7/tcp -> 127.0.0.1:8081\n7/udp -> 0.0.0.0:9000"
    );
    assert_eq!(
        cluster.ok(&["port", "echo", "7/udp"]).unwrap(),
        "0.0.0.0:9000"
    );

    // Taken by a container, here and where it is to go, and by a program that is none of ours.
    let mut again = vec!["run", "-d", "--host", "h1", "-p", "8080:1"];
    again.extend(["busybox", "sleep", "100"]);
    let text = cluster.refused(&again).unwrap();
    for word in ["8080/tcp", "`h1`", "`echo`", "hint: "] {
        assert!(text.contains(word), "{text}");
    }
    let mut other = vec![
        "run", "-d", "--name", "other", "--host", "h2", "-p", "8080:1",
    ];
    other.extend(["busybox", "sleep", "100"]);
    cluster.ok(&other).unwrap();
    let text = cluster.refused(&["migrate", "echo", "--to", "h2"]).unwrap();
    for word in ["8080/tcp", "`h2`", "`other`"] {
        assert!(text.contains(word), "{text}");
    }
    cluster.ok(&["rm", "-f", "other"]).unwrap();
    let listener = on_host(&cluster, 2, || Ok(TcpListener::bind("0.0.0.0:8080")?)).unwrap();
    let text = cluster.refused(&["migrate", "echo", "--to", "h2"]).unwrap();
    for word in ["port 8080/tcp is in use", "host `h2`"] {
        assert!(text.contains(word), "{text}");
    }
    let elsewhere = ["run", "--host", "h2", "-p", "8080:7", "busybox", "true"];
    let text = cluster.refused(&elsewhere).unwrap();
    assert!(text.contains("port 8080/tcp is in use"), "{text}");
    drop(listener);
    is_published(&cluster, 1);

    // A connection to its own address goes on while the ports change their host.
    let mut line = vec!["run", "-d", "--name", "peer", "--host", "h1"];
    line.extend(["busybox", "sleep", "1000"]);
    cluster.ok(&line).unwrap();
    let peer = cluster.processes_of(&cluster.id("peer").unwrap()).unwrap();
    let address = format!("{}:7", cluster.address("echo").unwrap());
    let address: SocketAddr = address.parse().unwrap();
    let mut held = inside(peer[0], move || {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
    .unwrap();
    for to in [2, 1] {
        cluster.migrate("echo", to).unwrap();
        is_published(&cluster, to);
        is_not_published(&cluster, 3 - to);
        held.write_all(b"still").unwrap();
        let mut said = [0; 5];
        held.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"still");
        // The rules outlive an agent, and the next one keeps the ports again.
        cluster.kill(to, "godwit-agent").unwrap();
        is_published_without_agent(&cluster, to);
        cluster.start_agent(to, &[], false).unwrap();
        cluster.wait_for_hosts(2).unwrap();
        is_published(&cluster, to);
        let taken = on_host(&cluster, to, || {
            Ok(TcpListener::bind("0.0.0.0:8080").is_err())
        });
        assert!(taken.unwrap(), "the port is kept");
    }

    // One that has ended holds none.
    cluster.ok(&["stop", "echo"]).unwrap();
    echo(&cluster, "next", &[&["--host", "h1"], &flags[..]].concat());
    is_published(&cluster, 1);
    cluster.ok(&["rm", "-f", "next"]).unwrap();
    is_not_published(&cluster, 1);

    // All that the image serves, at ports that are chosen: this one serves nothing.
    let chosen = ["--host", "h1", "-P", "-p", "7"];
    echo(&cluster, "chosen", &chosen);
    let said = cluster.ok(&["port", "chosen", "7"]).unwrap();
    let port: u16 = said.rsplit(':').next().unwrap().parse().unwrap();
    over_tcp(outside(&cluster, 1, port)).unwrap();
}

fn is_published_without_agent(cluster: &Cluster, host: u8) {
    over_tcp(outside(cluster, host, 8080)).unwrap();
}

#[test]
fn the_network_of_the_host_or_of_another_container_is_had_and_keeps_its_container_there() {
    let cluster = cluster();
    let mut line = vec!["run", "-d", "--name", "on-host", "--host", "h1"];
    line.extend(["--network", "host", "workload", "/bin/godwit-workload"]);
    line.extend(["echo", "7"]);
    cluster.ok(&line).unwrap();
    cluster
        .wait_for_log("on-host", |text| text.contains("ready"))
        .unwrap();
    over_tcp(outside(&cluster, 1, 7)).unwrap();
    let text = cluster
        .refused(&["migrate", "on-host", "--to", "h2"])
        .unwrap();
    for word in ["`on-host`", "network of host `h1`", "hint: "] {
        assert!(text.contains(word), "{text}");
    }
    cluster.ok(&["rm", "-f", "on-host"]).unwrap();
    over_tcp(outside(&cluster, 1, 7)).unwrap_err();

    echo(&cluster, "echo", &["--host", "h2"]);
    let joined = ["--network", "container:echo"];
    let mut line = vec!["run", "--name", "asks"];
    line.extend(joined);
    line.extend([
        "busybox",
        "sh",
        "-c",
        "echo next door | nc -w 3 127.0.0.1 7",
    ]);
    assert_eq!(cluster.ok(&line).unwrap(), "next door");
    assert_eq!(host_of(&cluster, "asks").unwrap(), "h2");
    let text = cluster.refused(&["migrate", "echo", "--to", "h1"]).unwrap();
    for word in ["`echo`", "shares its network", "`asks`", "hint: "] {
        assert!(text.contains(word), "{text}");
    }
    let mut elsewhere = vec!["run", "--host", "h1"];
    elsewhere.extend(joined);
    elsewhere.extend(["busybox", "true"]);
    let text = cluster.refused(&elsewhere).unwrap();
    assert!(text.contains("`echo` is on host `h2`"), "{text}");
    cluster.ok(&["rm", "asks"]).unwrap();
    cluster.migrate("echo", 1).unwrap();
    assert_eq!(cluster.ok(&line).unwrap(), "next door");
    assert_eq!(host_of(&cluster, "asks").unwrap(), "h1");

    let none = [
        "run",
        "--network",
        "none",
        "busybox",
        "ls",
        "/sys/class/net",
    ];
    assert_eq!(cluster.ok(&none).unwrap(), "lo");
    let mut both = vec!["run", "-p", "80:80"];
    both.extend(["--network", "none", "busybox", "true"]);
    let text = cluster.refused(&both).unwrap();
    assert!(text.contains("publishes no port"), "{text}");
}

#[test]
fn names_of_a_network_are_found_from_everywhere_and_follow_a_move() {
    let cluster = cluster();
    cluster.ok(&["network", "create", "front"]).unwrap();
    let on_front = ["--network", "front"];
    let web = ["--host", "h1", "--network-alias", "www"];
    echo(&cluster, "web", &[&on_front[..], &web[..]].concat());
    echo(&cluster, "plain", &["--host", "h1"]);
    let address = cluster.address("web").unwrap();
    // What a container on that host finds, and by which resolver.
    let finds = |host: &str, name: &str, flags: &[&str]| {
        let mut line = vec!["run", "--host", host];
        line.extend(on_front);
        line.extend(flags);
        line.extend(["busybox", "nslookup", name]);
        let output = cluster.output(&line).unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for to in [None, Some(2), Some(1)] {
        if let Some(to) = to {
            cluster.migrate("web", to).unwrap();
        }
        for host in ["h1", "h2"] {
            for name in ["web", "www", "web.front"] {
                let said = finds(host, name, &[]);
                assert!(said.contains(&format!("Address: {address}")), "{said}");
            }
        }
    }
    // Not of another network; but who is told to ask there, asks there.
    let plain = cluster.address("plain").unwrap();
    let said = finds("h1", "plain", &[]);
    assert!(!said.contains(&plain), "{said}");
    let said = finds("h1", "plain", &["--dns", "10.88.0.1"]);
    assert!(said.contains(&format!("Address: {plain}")), "{said}");

    // The files, and after a move, too.
    let script = "cat /etc/hosts /etc/resolv.conf /etc/hostname; echo read; sleep 1000";
    let mut line = vec!["run", "-d", "--name", "files", "--host", "h1"];
    line.extend(on_front);
    line.extend(["--add-host", "db:192.0.2.7", "--dns-search", "corp.example"]);
    line.extend(["busybox", "sh", "-c"]);
    let looped = format!(
        "while true; do {}; done",
        script.replace("sleep 1000", "sleep 0.2")
    );
    line.push(&looped);
    cluster.ok(&line).unwrap();
    cluster
        .wait_for_log("files", |text| text.contains("read"))
        .unwrap();
    cluster.migrate("files", 2).unwrap();
    let before = cluster.logs("files").unwrap().matches("read\n").count();
    cluster
        .wait_for_log("files", |text| text.matches("read\n").count() > before + 2)
        .unwrap();
    let log = cluster.logs("files").unwrap();
    let last = log.trim_end().rsplit("read\n").nth(1).unwrap();
    let (address, id) = (
        cluster.address("files").unwrap(),
        cluster.id("files").unwrap(),
    );
    let network = cluster.json(&["network", "inspect", "front"]).unwrap();
    let gateway = network[0]["gateway"].as_str().unwrap();
    for line in [
        "127.0.0.1\tlocalhost".to_owned(),
        "192.0.2.7\tdb".to_owned(),
        format!("{address}\t{} files", &id[..12]),
        format!("nameserver {gateway}"),
        "search corp.example".to_owned(),
        id[..12].to_owned(),
    ] {
        assert!(last.lines().any(|found| found == line), "{line}: {last}");
    }

    // Removed when nobody is on it.
    let text = cluster.refused(&["network", "rm", "front"]).unwrap();
    assert!(text.contains("`front` is used by container"), "{text}");
    let all = cluster.json(&["ps", "-a"]).unwrap();
    for container in godwit_tests::testbed::list(&all) {
        let id = container["id"].as_str().unwrap();
        cluster.ok(&["rm", "-f", id]).unwrap();
    }
    cluster.ok(&["network", "rm", "front"]).unwrap();
    let text = cluster.refused(&["network", "inspect", "front"]).unwrap();
    assert!(text.contains("no network `front`"), "{text}");
    let text = cluster.refused(&["network", "rm", "default"]).unwrap();
    assert!(text.contains("`default`"), "{text}");
    // Another one with other addresses works where the first one was.
    let mut make = vec!["network", "create", "--subnet", "172.30.0.0/24"];
    make.push("back");
    cluster.ok(&make).unwrap();
    echo(&cluster, "other", &["--host", "h1", "--network", "back"]);
    let mut line = vec!["run", "--host", "h2", "--network", "back", "busybox"];
    line.extend(["sh", "-c", "echo hello | nc -w 3 172.30.0.2 7"]);
    assert_eq!(cluster.ok(&line).unwrap(), "hello");
}
