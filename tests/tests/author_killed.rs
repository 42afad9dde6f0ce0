//! An agent that is killed while it makes an image: the next one clears away what a build had, and
//! lets a container go on that stood still for a commit.

use std::{fs, path::Path, process::Stdio, time::Duration};

use godwit_tests::testbed::{Cluster, Options, list, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    cluster
}

fn is_empty(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    }
}

fn restart(cluster: &mut Cluster) {
    cluster.kill(1, "godwit-agent").unwrap();
    cluster.start_agent(1, &[], false).unwrap();
    cluster.wait_for_hosts(1).unwrap();
}

#[test]
fn a_build_whose_agent_is_killed_in_any_step_leaves_nothing_and_is_built_again() {
    let mut cluster = cluster();
    let dir = cluster.dir().join("context");
    fs::create_dir_all(&dir).unwrap();
    // Something to be hashed, copied and packed while the agent is killed.
    fs::write(dir.join("large"), vec![7; 96 << 20]).unwrap();
    let data = cluster.dir().join("h1/data");
    let (work, containers) = (data.join("builds/work"), data.join("containers"));
    for (number, (step, marker)) in [
        ("RUN echo started && sleep 100000", "#2 started"),
        ("COPY large /large", "#2 ["),
        (
            "RUN echo packing && head -c 90m /dev/zero > /zeros",
            "#2 packing",
        ),
        ("WORKDIR /some/where", "#1 ["),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(dir.join("Dockerfile"), format!("FROM busybox\n{step}\n")).unwrap();
        let path = dir.display().to_string();
        let log = cluster.dir().join(format!("build-{number}.log"));
        let mut child = cluster
            .godwit(&["build", "-t", "killed", &path])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        wait_for("the step", PATIENCE, || {
            fs::read_to_string(&log).unwrap().contains(marker)
        })
        .unwrap();
        restart(&mut cluster);
        let status = child.wait().unwrap();
        let images = cluster.json(&["image", "ls"]).unwrap();
        let built = list(&images)
            .iter()
            .any(|image| image["name"] == "killed:latest");
        println!("{step}: {status}, built: {built}");
        // The last steps may have been faster.
        assert!(number > 1 || (!status.success() && !built), "{step}");
        wait_for("the end of what the build had", PATIENCE, || {
            is_empty(&work) && is_empty(&containers)
        })
        .unwrap();
        assert!(is_empty(&data.join("images/tmp")), "{step}");
    }
    fs::write(
        dir.join("Dockerfile"),
        "FROM busybox\nCOPY large /large\nRUN ls -l /large > /seen\n",
    )
    .unwrap();
    cluster
        .ok(&["build", "-t", "whole", &dir.display().to_string()])
        .unwrap();
    let said = cluster.ok(&["run", "whole", "cat", "/seen"]).unwrap();
    assert!(said.contains(&(96 << 20).to_string()), "{said}");
}

#[test]
fn a_container_goes_on_whose_commit_was_cut_off_by_the_end_of_its_agent() {
    let mut cluster = cluster();
    let command = "head -c 200m /dev/urandom > /large; i=0; \
                   while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    cluster
        .ok(&["run", "-d", "--name", "c", "busybox", "sh", "-c", command])
        .unwrap();
    cluster
        .wait_for_log("c", |text| text.lines().count() > 3)
        .unwrap();
    let id = cluster.id("c").unwrap();
    let mark = cluster
        .dir()
        .join("h1/data/containers")
        .join(&id)
        .join("paused-for-commit");
    let mut child = cluster
        .godwit(&["commit", "c", "cut:1"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the container to stand still", PATIENCE, || mark.exists()).unwrap();
    restart(&mut cluster);
    assert!(!child.wait().unwrap().success());
    let before = cluster.logs("c").unwrap().lines().count();
    cluster
        .wait_for_log("c", |text| text.lines().count() > before + 5)
        .unwrap();
    assert!(!mark.exists());
    let images = cluster.json(&["image", "ls"]).unwrap();
    assert_eq!(list(&images).len(), 1, "{images}");
    cluster.ok(&["commit", "c", "cut:2"]).unwrap();
    let said = cluster
        .ok(&["run", "cut:2", "sh", "-c", "wc -c < /large"])
        .unwrap();
    assert_eq!(said, (200 << 20).to_string());
}
