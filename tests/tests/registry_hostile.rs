//! A registry that stalls, lies, cuts or sends us elsewhere; and an agent that is killed while it
//! pulls. Nothing of what was not whole is ever an image.

use std::{fs, thread, time::Duration};

use godwit_tests::{
    archive,
    counterparts::Hostile,
    testbed::{Cluster, Options, list, wait_for},
};

const CONFIG: &str = "insecure-registries = [\"198.18.0.0/15\"]\nstall-timeout = 2\n";

fn cluster() -> (Cluster, Hostile, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.toml");
    fs::write(&path, CONFIG).unwrap();
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        agent_arguments: vec![(1, format!("--images-config={}", path.display()))],
        ..Options::default()
    })
    .unwrap();
    let layer = archive::layer(&cluster.programs().workload).unwrap();
    let hostile = Hostile::start(cluster.outside(), layer).unwrap();
    (cluster, hostile, dir)
}

fn runs(cluster: &Cluster, name: &str, image: &str) {
    let run = [
        "run",
        "-d",
        "--name",
        name,
        image,
        "godwit-workload",
        "count",
    ];
    cluster.ok(&run).unwrap();
    cluster
        .wait_for_log(name, |text| text.lines().count() > 2)
        .unwrap();
}

#[test]
fn what_a_registry_does_wrong_is_named_and_leaves_no_image() {
    let (cluster, hostile, _config) = cluster();
    for (name, words) in [
        ("stall", &["blob"][..]),
        ("digest", &["has digest"]),
        ("long", &["blob"]),
        ("short", &["ended after"]),
        ("endless", &["more than"]),
        ("elsewhere", &["blob"]),
        ("binary", &["manifest"]),
    ] {
        let image = format!("{}/{name}:1", hostile.address);
        let text = cluster.refused(&["pull", &image]).unwrap();
        println!("{name}: {text}");
        for word in words.iter().chain(&["host `h1`"]) {
            assert!(text.contains(word), "{name}: no `{word}` in: {text}");
        }
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(control), "{name}: {text:?}");
        let images = cluster.json(&["image", "ls"]).unwrap();
        assert!(list(&images).is_empty(), "{name}: {images}");
        let layers = cluster.host(1).dir.join("data/images/layers");
        assert_eq!(fs::read_dir(layers).unwrap().count(), 0, "{name}");
    }
    hostile.ranges();
    // One that only cuts off gives the rest when it is asked again.
    let image = format!("{}/cut:1", hostile.address);
    cluster.ok(&["pull", &image]).unwrap();
    let ranges = hostile.ranges();
    assert!(
        ranges.windows(2).all(|pair| pair[0] < pair[1]),
        "{ranges:?}"
    );
    assert!(ranges.len() > 2, "{ranges:?}");
    runs(&cluster, "cut", &image);
}

#[test]
fn an_agent_that_is_killed_while_it_pulls_goes_on_where_it_was() {
    let (mut cluster, hostile, _config) = cluster();
    let slow = format!("{}/slow:1", hostile.address);
    let data = cluster.host(1).dir.join("data/images");
    let mut pull = cluster.godwit(&["pull", &slow]).spawn().unwrap();
    let begun = || {
        let partial = fs::read_dir(data.join("ingest")).into_iter().flatten();
        partial.flatten().any(|entry| {
            entry
                .metadata()
                .is_ok_and(|metadata| metadata.len() > 200_000)
        })
    };
    wait_for("a part of the layer", Duration::from_secs(60), begun).unwrap();
    cluster.kill(1, "godwit-agent").unwrap();
    assert!(!pull.wait().unwrap().success());
    cluster.start_agent(1, &[], false).unwrap();
    cluster.wait_for_hosts(1).unwrap();
    assert!(list(&cluster.json(&["image", "ls"]).unwrap()).is_empty());
    hostile.ranges();
    let good = format!("{}/good:1", hostile.address);
    cluster.ok(&["pull", &good]).unwrap();
    assert!(hostile.ranges().iter().any(|offset| *offset >= 200_000));
    runs(&cluster, "good", &good);
    cluster.ok(&["rm", "-f", "good"]).unwrap();

    // Loads and prunes that are cut off at any moment.
    let path = cluster.dir().join("workload.tar");
    archive::write(&path, "workload", &cluster.programs().workload).unwrap();
    let path = path.display().to_string();
    for (round, wait) in [5, 40, 120, 250].into_iter().enumerate() {
        let arguments: &[&str] = if round % 2 == 0 {
            &["load", "-i", &path]
        } else {
            &["image", "prune", "-af"]
        };
        let mut child = cluster.godwit(arguments).spawn().unwrap();
        // A moment to be killed at, not a time to be done in.
        thread::sleep(Duration::from_millis(wait));
        cluster.kill(1, "godwit-agent").unwrap();
        let _ = child.wait();
        cluster.start_agent(1, &[], false).unwrap();
        cluster.wait_for_hosts(1).unwrap();
        assert_eq!(fs::read_dir(data.join("tmp")).unwrap().count(), 0);
        cluster.ok(&["load", "-i", &path]).unwrap();
        let name = format!("again-{round}");
        runs(&cluster, &name, "workload");
        cluster.ok(&["rm", "-f", &name]).unwrap();
    }
    cluster.ok(&["image", "prune", "-af"]).unwrap();
    for dir in ["layers", "blobs/sha256", "notes", "ingest"] {
        assert_eq!(fs::read_dir(data.join(dir)).unwrap().count(), 0, "{dir}");
    }
}
