//! Volumes and binds: nothing written to them is lost when their container moves, and they are where
//! it is and nowhere else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use godwit_tests::{
    archive,
    command::run,
    scene::host_of,
    testbed::{Cluster, Options, PATIENCE, list, wait_for},
};
use serde_json::{Value, json};

/// What a freeze may carry of everything, when a volume has 64 MiB that do not change.
const FREEZE_BYTES: u64 = 16 << 20;

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
}

fn append(cluster: &Cluster, name: &str, flags: &[&str], arguments: &[&str]) {
    let mut line = vec!["run", "-d", "--name", name, "--host", "h1"];
    line.extend(flags);
    line.extend(["workload", "/bin/godwit-workload", "append"]);
    line.extend(arguments);
    cluster.ok(&line).unwrap();
    goes_on(cluster, name);
}

fn goes_on(cluster: &Cluster, name: &str) {
    let lines = cluster.logs(name).unwrap().lines().count();
    cluster
        .wait_for_log(name, |text| text.lines().count() > lines + 20)
        .unwrap();
}

/// Ends it, and insists that it found every number.
fn finish(cluster: &Cluster, name: &str) {
    let stopped = cluster.json(&["stop", "-t", "60", name]).unwrap();
    let log = cluster.logs(name).unwrap();
    let tail: Vec<_> = log.lines().rev().take(5).collect();
    assert_eq!(stopped[0]["exit_code"], 0, "{tail:?}");
    assert!(tail[0].starts_with("ok "), "{tail:?}");
}

fn volume(cluster: &Cluster, name: &str) -> Value {
    cluster.json(&["volume", "inspect", name]).unwrap()[0].clone()
}

/// The directories of volumes on a host.
fn there(cluster: &Cluster, host: u8) -> Vec<PathBuf> {
    let dir = cluster.host(host).dir.join("data/volumes");
    let Ok(entries) = fs::read_dir(&dir) else {
        return Vec::new();
    };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The anonymous volume of a container.
fn anonymous(cluster: &Cluster) -> String {
    let all = cluster.json(&["volume", "ls"]).unwrap();
    let found = list(&all).iter().find(|v| v["anonymous"] == true);
    found.unwrap()["name"].as_str().unwrap().to_owned()
}

#[test]
fn volumes_and_binds_lose_nothing_in_three_moves_and_outlive_their_container() {
    let cluster = cluster();
    let bind = cluster.dir().join("bind");
    fs::create_dir(&bind).unwrap();
    let bound = format!("{}:/bind", bind.display());
    let flags = ["-v", "db:/vol", "-v", "/anon", "-v", &bound];
    append(
        &cluster,
        "app",
        &flags,
        &["--large=64", "/vol", "/anon", "/bind"],
    );
    assert_eq!(volume(&cluster, "db")["host"], "h1");
    for to in [2, 1, 2] {
        let moved = cluster.migrate("app", to).unwrap();
        let rounds = list(&moved["rounds"]).iter();
        let rounds: u64 = rounds.map(|r| r["sent_bytes"].as_u64().unwrap()).sum();
        let freeze = moved["times"]["bytes"].as_u64().unwrap() - rounds;
        assert!(rounds > 64 << 20, "{moved}");
        assert!(freeze < FREEZE_BYTES, "{freeze}: {moved}");
        goes_on(&cluster, "app");
        let here = volume(&cluster, "db");
        assert_eq!(here["host"], format!("h{to}"), "{here}");
        assert_eq!(there(&cluster, to).len(), 2);
        assert_eq!(there(&cluster, 3 - to), Vec::<PathBuf>::new());
    }
    finish(&cluster, "app");

    // Kept after `rm`; whoever uses it next is placed where it is.
    let anonymous = anonymous(&cluster);
    cluster.ok(&["rm", "app"]).unwrap();
    assert_eq!(there(&cluster, 2).len(), 2);
    let mut look = vec!["run", "--name", "look", "-v", "db:/vol:ro", "-v"];
    let other = format!("{anonymous}:/anon");
    look.extend([other.as_str(), "busybox", "sh", "-c"]);
    look.push("wc -c < /vol/numbers; touch /vol/x 2>&1; ls /anon | head -1");
    let image = cluster.programs().image("busybox");
    cluster.load_image(&image).unwrap();
    let said = cluster.ok(&look).unwrap();
    let numbers = fs::metadata(bind.join("numbers")).unwrap().len();
    assert!(said.starts_with(&numbers.to_string()), "{said}");
    assert!(
        said.contains("Read-only") && said.contains("at-0"),
        "{said}"
    );
    assert_eq!(host_of(&cluster, "look").unwrap(), "h2");
    let elsewhere = ["run", "--host", "h1", "-v", "db:/vol", "busybox", "true"];
    let text = cluster.refused(&elsewhere).unwrap();
    for word in ["`db`", "`h2`", "`h1`", "hint: "] {
        assert!(text.contains(word), "{text}");
    }
    let text = cluster.refused(&["volume", "rm", "db"]).unwrap();
    assert!(text.contains("`db`") && text.contains("`look`"), "{text}");

    // With `rm -v` those without a name go, and the others stay.
    cluster.ok(&["rm", "-v", "look"]).unwrap();
    assert_eq!(there(&cluster, 2).len(), 1);
    cluster.ok(&["volume", "prune", "-f"]).unwrap();
    assert_eq!(volume(&cluster, "db")["host"], "h2");
    cluster.ok(&["volume", "rm", "db"]).unwrap();
    assert_eq!(there(&cluster, 2), Vec::<PathBuf>::new());
    let text = cluster.refused(&["volume", "inspect", "db"]).unwrap();
    assert!(text.contains("no volume `db`"), "{text}");
}

#[test]
fn an_image_gives_its_volumes_their_content_and_what_is_read_only_stays_so_after_a_move() {
    let cluster = cluster();
    let path = cluster.dir().join("with.tar");
    let config = json!({"Env": ["PATH=/bin"], "WorkingDir": "/",
        "Volumes": {"/etc": {}, "/tmp/": {}}});
    let program = &cluster.programs().workload;
    archive::write_configured(&path, "with", program, &config).unwrap();
    cluster.load_image(&path).unwrap();
    let mut line = vec!["run", "-d", "--name", "with", "--host", "h1", "-v"];
    line.extend(["kept:/etc", "--mount", "type=tmpfs,target=/memory"]);
    line.extend(["-v", "over:/data", "with", "/bin/godwit-workload"]);
    line.extend(["append", "/data", "/tmp", "/memory"]);
    cluster.ok(&line).unwrap();
    goes_on(&cluster, "with");
    // The one that was named took the image's place, and has what the image has there.
    let id = volume(&cluster, "kept")["id"].as_str().unwrap().to_owned();
    let data = |host: u8| cluster.host(host).dir.join("data/volumes");
    let passwd = Path::new(&id).join("data/passwd");
    let text = fs::read_to_string(data(1).join(&passwd)).unwrap();
    assert!(text.contains("anna"), "{text}");
    assert_eq!(list(&cluster.json(&["volume", "ls"]).unwrap()).len(), 3);
    // Another one reads what it writes.
    let image = cluster.programs().image("busybox");
    cluster.load_image(&image).unwrap();
    let mut reader = vec!["run", "-d", "--name", "reader", "--volumes-from", "with:ro"];
    reader.extend(["busybox", "sh", "-c"]);
    reader.push("while sleep 0.1; do touch /data/y || echo refused; ls /data | wc -l; done");
    cluster.ok(&reader).unwrap();
    assert_eq!(host_of(&cluster, "reader").unwrap(), "h1");
    cluster
        .wait_for_log("reader", |text| text.contains("refused"))
        .or_else(|_| cluster.wait_for_log("reader", |text| text.contains("Read-only")))
        .unwrap();
    let text = cluster.refused(&["migrate", "with", "--to", "h2"]).unwrap();
    for word in ["`with`", "shares volume", "`reader`", "hint: "] {
        assert!(text.contains(word), "{text}");
    }
    goes_on(&cluster, "with");
    cluster.ok(&["rm", "-f", "reader"]).unwrap();
    cluster.migrate("with", 2).unwrap();
    goes_on(&cluster, "with");
    assert_eq!(
        fs::read_to_string(data(2).join(&passwd)).unwrap(),
        text_of(&cluster)
    );
    finish(&cluster, "with");

    // Read-only before and after a move.
    let mut line = vec![
        "run",
        "-d",
        "--name",
        "ro",
        "-v",
        "over:/over:ro",
        "busybox",
    ];
    line.extend(["sh", "-c"]);
    line.push("while sleep 0.1; do touch /over/z && echo written || echo refused; done");
    cluster.ok(&["rm", "with"]).unwrap();
    cluster.ok(&line).unwrap();
    for to in [1, 2] {
        cluster.migrate("ro", to).unwrap();
        let lines = cluster.logs("ro").unwrap().lines().count();
        cluster
            .wait_for_log("ro", |text| text.lines().count() > lines + 5)
            .unwrap();
    }
    let log = cluster.logs("ro").unwrap();
    assert!(!log.contains("written") && log.contains("refused"), "{log}");
}

/// `/etc/passwd` of the workload's image.
fn text_of(cluster: &Cluster) -> String {
    let mut line = vec!["run", "--name", "cat", "--host", "h2"];
    line.extend(["-v", "kept:/kept", "busybox", "cat", "/kept/passwd"]);
    let mut text = cluster.ok(&line).unwrap();
    cluster.ok(&["rm", "cat"]).unwrap();
    text.push('\n');
    text
}

#[test]
fn a_bind_must_exist_where_the_container_is_to_be() {
    let cluster = cluster();
    let dir = cluster.dir().join("only");
    fs::create_dir(&dir).unwrap();
    let text = dir.display().to_string();
    // A file system that only h1 sees.
    let host = cluster.host(1);
    run(host.command("mount", &["-t", "tmpfs", "tmpfs", &text])).unwrap();
    run(host.command("mkdir", &[&format!("{text}/here")])).unwrap();
    let bound = format!("{text}/here:/bind");
    let mut line = vec!["run", "--host", "h2", "-v", &bound, "workload"];
    line.push("/bin/godwit-workload");
    let refused = cluster.output(&line).unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(125), "{said}");
    let source = format!("`{text}/here`");
    assert!(said.contains(&source), "{said}");
    append(&cluster, "app", &["-v", &bound], &["/bind"]);
    let said = cluster.refused(&["migrate", "app", "--to", "h2"]).unwrap();
    for word in [source.as_str(), "does not exist", "host `h2`"] {
        assert!(said.contains(word), "{said}");
    }
    goes_on(&cluster, "app");
    assert_eq!(host_of(&cluster, "app").unwrap(), "h1");
    finish(&cluster, "app");
}

/// Begins a migration so slow that it is still in its first round.
fn slowly(cluster: &Cluster) {
    let mut line = vec!["migrate", "app", "--to", "h2", "--detach"];
    line.extend(["--max-bandwidth", "4M"]);
    cluster.ok(&line).unwrap();
    let id = cluster.id("app").unwrap();
    let dir = cluster.host(2).dir.join("data/containers").join(id);
    wait_for("something of the volume on its way", PATIENCE, || {
        let arrived = fs::read_dir(dir.join("incoming"));
        let mut arrived = arrived.into_iter().flatten().flatten();
        arrived.any(|file| {
            let name = file.file_name();
            let is_part = name.to_string_lossy().starts_with("volume-");
            is_part && file.metadata().is_ok_and(|found| found.len() > 0)
        })
    })
    .unwrap();
    assert_eq!(there(cluster, 2).len(), 1);
}

fn ended(cluster: &Cluster) {
    wait_for("the migration's end", PATIENCE, || {
        let all = cluster.json(&["migration", "ls"]);
        all.is_ok_and(|all| list(&all)[0]["phase"] == "aborted")
    })
    .unwrap();
    goes_on(cluster, "app");
    assert_eq!(volume(cluster, "db")["host"], "h1");
    wait_for("nothing of the volume on h2", PATIENCE, || {
        there(cluster, 2).is_empty()
    })
    .unwrap();
}

#[test]
fn a_move_that_is_broken_off_leaves_the_volume_whole_and_nothing_at_the_destination() {
    let mut cluster = cluster();
    append(&cluster, "app", &["-v", "db:/vol"], &["--large=48", "/vol"]);
    slowly(&cluster);
    let all = cluster.json(&["migration", "ls"]).unwrap();
    let id = list(&all)[0]["id"].as_str().unwrap().to_owned();
    cluster.ok(&["migration", "cancel", &id]).unwrap();
    ended(&cluster);
    for host in [2, 1] {
        slowly(&cluster);
        cluster.kill(host, "godwit-agent").unwrap();
        cluster.start_agent(host, &[], false).unwrap();
        cluster.wait_for_hosts(2).unwrap();
        ended(&cluster);
    }
    cluster.migrate("app", 2).unwrap();
    goes_on(&cluster, "app");
    assert_eq!(there(&cluster, 1), Vec::<PathBuf>::new());
    finish(&cluster, "app");
}
