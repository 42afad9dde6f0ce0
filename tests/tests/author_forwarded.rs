//! Images are made through whichever member is asked: one that does not lead passes all of it on.

use std::{fs, process::Command};

use godwit_tests::{
    command::{run, sh},
    testbed::{Cluster, Options},
};
use serde_json::Value;

#[test]
fn a_member_that_does_not_lead_passes_builds_imports_and_commits_on() {
    let cluster = Cluster::start(Options {
        hosts: 3,
        members: 3,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    // A configuration that knows one member, which follows.
    let leader = cluster.leader().unwrap();
    let follower = (1..=3).find(|number| *number != leader).unwrap();
    let admin = cluster.dir().join("follower");
    sh(&format!(
        "cp -r {} {}",
        cluster.admin_dir().display(),
        admin.display()
    ))
    .unwrap();
    let path = admin.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let members = config["members"].as_array_mut().unwrap();
    members.retain(|member| member["name"] == format!("m{follower}"));
    assert_eq!(members.len(), 1);
    fs::write(&path, config.to_string()).unwrap();
    let godwit = |arguments: &[&str]| {
        let mut command = Command::new(&cluster.programs().godwit);
        command.arg("--config").arg(&admin).args(arguments);
        run(command)
    };

    let dir = cluster.dir().join("context");
    fs::create_dir_all(&dir).unwrap();
    // More than what waits on the way.
    fs::write(dir.join("large"), vec![1; 24 << 20]).unwrap();
    fs::write(
        dir.join("Dockerfile"),
        "FROM busybox\nCOPY large /large\nRUN wc -c < /large > /size\n",
    )
    .unwrap();
    let context = dir.display().to_string();
    godwit(&["build", "-t", "passed", "--host", "h2", &context]).unwrap();
    let said = cluster.ok(&[
        "run", "--name", "c", "--host", "h2", "passed", "cat", "/size",
    ]);
    assert_eq!(said.unwrap(), (24 << 20).to_string());
    godwit(&["commit", "c", "committed"]).unwrap();
    let tar = cluster.dir().join("root.tar");
    sh(&format!("tar -C {context} -cf {} .", tar.display())).unwrap();
    godwit(&["import", &tar.display().to_string(), "imported"]).unwrap();
    let images = cluster.json(&["image", "ls"]).unwrap().to_string();
    for name in ["passed:latest", "committed:latest", "imported:latest"] {
        assert!(images.contains(name), "{images}");
    }

    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN exit 3\n").unwrap();
    let error = godwit(&["build", &context]).unwrap_err().to_string();
    assert!(
        error.contains("Dockerfile:2: `RUN exit 3` ended with exit code 3"),
        "{error}"
    );
}
