//! Images from what containers changed, and from root file systems.

use std::{fs, process::Stdio};

use godwit_tests::{
    command::sh,
    testbed::{Cluster, Options, list},
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

const COUNT: &str = "mkdir /new; rm /bin/vi; i=0; \
                     while :; do i=$((i+1)); echo $i > /new/count; echo $i; sleep 0.05; done";

#[test]
fn a_commit_has_what_changed_before_and_after_a_move_and_the_container_goes_on() {
    let cluster = cluster();
    cluster
        .ok(&[
            "run", "-d", "--name", "c", "--host", "h1", "busybox", "sh", "-c", COUNT,
        ])
        .unwrap();
    cluster
        .wait_for_log("c", |text| text.lines().count() > 5)
        .unwrap();
    let change = [
        "-c",
        "CMD cat /new/count",
        "-c",
        "ENV WHO=me",
        "-c",
        "LABEL a=b",
    ];
    let id = cluster
        .ok(&[
            &["commit", "-a", "Anna", "-m", "first"],
            &change[..],
            &["c", "kept:1"],
        ]
        .concat())
        .unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    let goes_on = |cluster: &Cluster| {
        let before = cluster.logs("c").unwrap().lines().count();
        cluster
            .wait_for_log("c", |text| text.lines().count() > before + 5)
            .unwrap();
    };
    goes_on(&cluster);
    let first: u64 = cluster.ok(&["run", "kept:1"]).unwrap().parse().unwrap();
    assert!(first > 0);
    let said = cluster.ok(&[
        "run",
        "--host",
        "h1",
        "kept:1",
        "sh",
        "-c",
        "echo $WHO; ls /bin/vi || echo gone",
    ]);
    assert_eq!(said.unwrap().lines().collect::<Vec<_>>(), ["me", "gone"]);
    let blob = cluster
        .dir()
        .join("h1/data/images/blobs/sha256")
        .join(&id[7..]);
    let config: serde_json::Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    let last = list(&config["history"]).last().unwrap().clone();
    assert_eq!(
        (&last["comment"], &config["author"]),
        (&"first".into(), &"Anna".into())
    );
    assert_eq!(config["config"]["Labels"]["a"], "b");

    cluster.migrate("c", 2).unwrap();
    goes_on(&cluster);
    cluster
        .ok(&["commit", "--pause=false", "c", "kept:2"])
        .unwrap();
    cluster.ok(&["commit", "c", "kept:3"]).unwrap();
    goes_on(&cluster);
    let third: u64 = cluster
        .ok(&["run", "--host", "h2", "kept:3", "cat", "/new/count"])
        .unwrap()
        .parse()
        .unwrap();
    assert!(third > first, "{first} {third}");
    cluster.migrate("c", 1).unwrap();
    goes_on(&cluster);

    cluster.ok(&["stop", "c"]).unwrap();
    cluster.ok(&["commit", "c", "kept:4"]).unwrap();
    for (arguments, words) in [
        (&["commit", "nosuch", "x"][..], "no container `nosuch`"),
        (
            &["commit", "-c", "RUN x", "c"],
            "only what changes the configuration",
        ),
        (&["commit", "-c", "NOPE", "c"], "unknown instruction `NOPE`"),
    ] {
        let text = cluster.refused(arguments).unwrap();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn an_imported_root_is_one_image_on_all_hosts_and_its_container_moves() {
    let cluster = cluster();
    let root = cluster.dir().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/mine"), "imported\n").unwrap();
    // The one program of the test image.
    let image = cluster.programs().image("busybox");
    let layer = cluster.dir().join("unpacked");
    fs::create_dir_all(&layer).unwrap();
    sh(&format!(
        "tar -xf {} -C {}",
        image.display(),
        layer.display()
    ))
    .unwrap();
    let tar = sh(&format!("find {} -name layer.tar", layer.display())).unwrap();
    sh(&format!(
        "tar -xf {} -C {} ./bin/busybox",
        tar.trim(),
        root.display()
    ))
    .or_else(|_| {
        sh(&format!(
            "tar -xf {} -C {} bin/busybox",
            tar.trim(),
            root.display()
        ))
    })
    .unwrap();
    std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
    let file = cluster.dir().join("root.tar.gz");
    sh(&format!(
        "tar -C {} -czf {} .",
        root.display(),
        file.display()
    ))
    .unwrap();

    let command = "CMD [\"/bin/sh\", \"-c\", \"while read l; do echo $l; done < /etc/mine; while :; do /bin/busybox sleep 1; done\"]";
    let path = file.display().to_string();
    let id = cluster
        .ok(&["import", "-c", command, "-m", "mine", &path, "imported"])
        .unwrap();
    let images = cluster.json(&["image", "ls"]).unwrap();
    let found = list(&images)
        .iter()
        .find(|image| image["name"] == "imported:latest")
        .unwrap();
    assert_eq!(found["id"], id);
    assert_eq!(list(&found["hosts"]).len(), 2, "{found}");
    cluster
        .ok(&["run", "-d", "--name", "i", "--host", "h1", "imported"])
        .unwrap();
    cluster
        .wait_for_log("i", |text| text.contains("imported"))
        .unwrap();
    cluster.migrate("i", 2).unwrap();
    cluster.migrate("i", 1).unwrap();

    let broken = cluster.dir().join("broken.tar");
    fs::write(&broken, &fs::read(&file).unwrap()[..1000]).unwrap();
    let path = broken.display().to_string();
    let output = cluster
        .godwit(&["import", &path, "broken"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("broken.tar") && text.contains("h1"), "{text}");
    let images = cluster.json(&["image", "ls"]).unwrap();
    assert!(
        list(&images)
            .iter()
            .all(|image| image["name"] != "broken:latest"),
        "{images}"
    );
}
