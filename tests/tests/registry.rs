//! Images from a real registry and to it, and from host to host: a layer comes from the registry
//! once.

use std::fs;

use godwit_tests::{
    archive,
    counterparts::{Guard, Podman, Registry},
    testbed::{Cluster, Options, list},
};
use serde_json::Value;

/// Registries on the testbed's bridge are neither on loopback nor vouched for.
const CONFIG: &str = "insecure-registries = [\"198.18.0.0/15\"]\n";

fn cluster(hosts: u8, config: &str) -> (Cluster, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.toml");
    fs::write(&path, config).unwrap();
    let argument = format!("--images-config={}", path.display());
    let cluster = Cluster::start(Options {
        hosts,
        members: 1,
        agent_arguments: (1..=hosts).map(|host| (host, argument.clone())).collect(),
        ..Options::default()
    });
    (cluster.unwrap(), dir)
}

fn workload(cluster: &Cluster) -> String {
    let path = cluster.dir().join("workload.tar");
    archive::write(&path, "workload", &cluster.programs().workload).unwrap();
    format!("docker-archive:{}", path.display())
}

fn hosts_of(cluster: &Cluster, name: &str) -> Vec<String> {
    let images = cluster.json(&["image", "ls"]).unwrap();
    let image = list(&images).iter().find(|image| image["name"] == name);
    let hosts = image.map(|image| list(&image["hosts"]).to_vec());
    let text = |host: Value| host.as_str().unwrap_or_default().to_owned();
    hosts.unwrap_or_default().into_iter().map(text).collect()
}

#[test]
fn an_image_comes_from_the_registry_once_and_then_from_host_to_host() {
    let (cluster, _config) = cluster(3, CONFIG);
    let dir = cluster.dir().join("registry");
    let mut registry = Registry::start(&dir, cluster.outside(), Guard::default()).unwrap();
    registry
        .put(&workload(&cluster), "team/workload:1", &[])
        .unwrap();
    let image = format!("{}/team/workload:1", registry.address);
    let printed = cluster.ok(&["pull", &image, "--host", "h1"]).unwrap();
    assert_eq!(printed, image);
    assert_eq!(hosts_of(&cluster, &image), ["h1"]);
    let output = cluster.output(&["pull", &image, "--host", "h1"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Image is up to date"), "{said}");

    // From here on there is no registry: what others need, they get from the first.
    registry.stop();
    let run = ["run", "-d", "--name", "w", "--host", "h2", &image];
    let workload = ["godwit-workload", "count"];
    cluster.ok(&[&run[..], &workload].concat()).unwrap();
    cluster
        .wait_for_log("w", |text| text.lines().count() > 3)
        .unwrap();
    assert_eq!(hosts_of(&cluster, &image), ["h1", "h2"]);

    // A host without the image is as good a destination: it is brought before the freeze.
    cluster.migrate("w", 3).unwrap();
    assert_eq!(hosts_of(&cluster, &image), ["h1", "h2", "h3"]);
    let lines = cluster.logs("w").unwrap().lines().count();
    cluster
        .wait_for_log("w", |text| text.lines().count() > lines + 3)
        .unwrap();
    assert_eq!(
        registry.asked_for("/blobs/"),
        2,
        "a configuration and a layer"
    );

    // What a container uses stays; where nothing uses it, it goes.
    let refused = cluster.refused(&["rmi", &image]).unwrap();
    assert!(refused.contains("container w"), "{refused}");
    assert_eq!(hosts_of(&cluster, &image), ["h3"]);
    let text = cluster.ok(&["system", "df", "-v"]).unwrap();
    assert!(text.contains(&image), "{text}");
    cluster.ok(&["rm", "-f", "w"]).unwrap();
    cluster.ok(&["image", "prune", "-af"]).unwrap();
    assert!(list(&cluster.json(&["image", "ls"]).unwrap()).is_empty());
    let left = cluster.json(&["system", "df"]).unwrap();
    for host in list(&left) {
        assert_eq!(host["usage"]["layers"], 0, "{left}");
        assert_eq!(host["usage"]["blobs"], 0, "{left}");
    }

    registry.start_again().unwrap();
    let run = ["run", "-d", "--name", "x", "--host", "h2", &image];
    cluster.ok(&[&run[..], &workload].concat()).unwrap();
    assert_eq!(
        hosts_of(&cluster, &image),
        ["h2"],
        "run pulls what nobody has"
    );
}

#[test]
fn what_is_pushed_and_saved_is_what_others_pull_and_load() {
    let tls = tempfile::tempdir().unwrap();
    let guard = |cluster: &Cluster| {
        let certified =
            rcgen::generate_simple_self_signed(vec![cluster.outside().to_string()]).unwrap();
        let (cert, key) = (tls.path().join("cert.pem"), tls.path().join("key.pem"));
        fs::write(&cert, certified.cert.pem()).unwrap();
        fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        Guard {
            tls: Some((cert, key)),
            user: Some(("ann".to_owned(), "a secret".to_owned())),
        }
    };
    let (cluster, _config) = cluster(2, CONFIG);
    let dir = cluster.dir().join("registry");
    let registry = Registry::start(&dir, cluster.outside(), guard(&cluster)).unwrap();
    cluster.load_workload().unwrap();
    let image = format!("{}/team/pushed:1", registry.address);
    cluster.ok(&["tag", "workload", &image]).unwrap();
    assert_eq!(hosts_of(&cluster, &image), ["h1", "h2"]);

    let refused = cluster.refused(&["push", &image]).unwrap();
    assert!(refused.contains("godwit login"), "{refused}");
    let mut login = cluster.godwit(&["login", "-u", "ann", "-p", "wrong", &registry.address]);
    assert!(!login.output().unwrap().status.success());
    let secret = ["login", "-u", "ann", "-p", "a secret", &registry.address];
    assert_eq!(cluster.ok(&secret).unwrap(), "Login Succeeded");
    let pushed = cluster.ok(&["push", &image]).unwrap();
    let digest = registry.inspect("team/pushed:1").unwrap()["Digest"].clone();
    let digest = digest.as_str().unwrap().to_owned();
    assert!(pushed.contains(&digest), "{pushed} {digest}");
    // Neither an agent's log nor a member's has the password.
    for host in &cluster.hosts {
        for log in ["agent.log", "member.log"] {
            let text = fs::read_to_string(host.dir.join(log)).unwrap_or_default();
            assert!(!text.contains("a secret"), "{log}");
        }
    }
    // The same layer to another repository is mounted, not sent.
    let other = format!("{}/team/other:1", registry.address);
    cluster.ok(&["tag", &image, &other]).unwrap();
    let output = cluster.output(&["push", &other, "--host", "h1"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Mounted"), "{said}");
    assert_eq!(registry.inspect("team/other:1").unwrap()["Digest"], digest);

    // By its digest it comes back without a name.
    cluster
        .ok(&["rmi", "-f", "workload", &image, &other])
        .unwrap();
    assert!(list(&cluster.json(&["image", "ls"]).unwrap()).is_empty());
    let by_digest = format!("{}/team/pushed@{digest}", registry.address);
    cluster.ok(&["pull", "--host", "h2", &by_digest]).unwrap();
    cluster.ok(&["pull", "--all-hosts", &image]).unwrap();
    assert_eq!(hosts_of(&cluster, &image), ["h1", "h2"]);

    let podman = Podman::new(&cluster.dir().join("podman")).unwrap();
    podman
        .ok(&[
            "pull",
            "--tls-verify=false",
            "--creds",
            "ann:a secret",
            &image,
        ])
        .unwrap();
    let inspected = cluster.json(&["image", "inspect", &image]).unwrap();
    let id = inspected[0]["Id"].as_str().unwrap().to_owned();
    assert_eq!(
        podman
            .ok(&["image", "inspect", "--format", "sha256:{{.Id}}", &image])
            .unwrap(),
        id
    );
    podman.ok(&["rmi", "-f", &image]).unwrap();
    let saved = cluster.dir().join("saved.tar").display().to_string();
    cluster.ok(&["save", "-o", &saved, &image]).unwrap();
    podman.ok(&["load", "-q", "-i", &saved]).unwrap();
    assert_eq!(
        podman
            .ok(&["image", "inspect", "--format", "sha256:{{.Id}}", &image])
            .unwrap(),
        id
    );
    cluster.ok(&["logout", &registry.address]).unwrap();
    let refused = cluster.refused(&["pull", "--host", "h1", &image]).unwrap();
    assert!(refused.contains("godwit login"), "{refused}");
}

#[test]
fn the_image_of_the_wanted_platform_is_taken_from_an_index_whatever_compresses_it() {
    let (cluster, _config) = cluster(1, CONFIG);
    let dir = cluster.dir().join("registry");
    let registry = Registry::start(&dir, cluster.outside(), Guard::default()).unwrap();
    let from = workload(&cluster);
    for (tag, options) in [
        ("oci", &["--format", "oci"][..]),
        ("v2s2", &["--format", "v2s2"]),
        (
            "zstd",
            &["--format", "oci", "--dest-compress-format", "zstd"],
        ),
    ] {
        registry.put(&from, &format!("w:{tag}"), options).unwrap();
        let image = format!("{}/w:{tag}", registry.address);
        cluster.ok(&["pull", &image]).unwrap();
        let run = ["run", "-d", "--name", tag, &image];
        cluster
            .ok(&[&run[..], &["godwit-workload", "count"]].concat())
            .unwrap();
        cluster
            .wait_for_log(tag, |text| text.lines().count() > 2)
            .unwrap();
    }
    let unknown = format!("{}/w:none", registry.address);
    let refused = cluster.refused(&["pull", &unknown]).unwrap();
    assert!(
        refused.contains("not found") && refused.contains(&registry.address),
        "{refused}"
    );
    let refused = cluster.refused(&["pull", "busybox"]).unwrap();
    assert!(refused.contains("default-registry"), "{refused}");
}
