//! After the commit the staged copy is lost: the container goes back to its source when the
//! destination itself says that it never ran there, and by an operator's word when nobody is left
//! to say so. The source's connections live on.

use godwit_tests::{
    mover::{Rest, at_rest, ended, view},
    scene::{Scene, host_of},
    testbed::{Cluster, Hold, Options, PATIENCE, wait_for},
};
use serde_json::Value;

/// The members are on host 1, as Redis is; it goes to 2, its client is on 3.
struct Stage {
    cluster: Cluster,
    scene: Scene,
    rest: Rest,
}

impl Stage {
    fn set() -> Self {
        let cluster = Cluster::start(Options {
            hosts: 3,
            members: 1,
            ..Options::default()
        })
        .unwrap();
        Scene::prepare(&cluster).unwrap();
        let scene = Scene::play(&cluster, 1, 3).unwrap();
        // The host's end of the network is made once.
        let warm = [
            "run",
            "-d",
            "--name",
            "first",
            "--host",
            "h2",
            "--network",
            "scene",
            "workload",
            "/bin/godwit-workload",
            "exit",
            "0",
        ];
        cluster.ok(&warm).unwrap();
        cluster.ok(&["rm", "-f", "first"]).unwrap();
        let rest = at_rest(&cluster, 2).unwrap();
        Self {
            cluster,
            scene,
            rest,
        }
    }

    /// Starts the move, and answers its id once it is committed. The destination is held up
    /// before it resumes.
    fn commit(&self) -> (String, Hold) {
        let hold = self.cluster.hold(2, "resume").unwrap();
        let id = self
            .cluster
            .ok(&["migrate", "-d", &self.scene.redis, "--to", "h2"])
            .unwrap();
        self.until(&id, "the commit", |view| view["phase"] == "committed");
        hold.wait(PATIENCE).unwrap();
        (id, hold)
    }

    fn until(&self, id: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_for(what, PATIENCE, || {
            last = view(&self.cluster, id).unwrap_or_default();
            fits(&last)
        })
        .unwrap_or_else(|error| panic!("{error:#}: {last}"));
        last
    }

    /// As the kernel's out-of-memory killer, at its worst.
    fn lose_the_copy(&mut self) {
        for program in ["godwit-shim", "criu"] {
            // An error: one of them has noticed that another is gone, and has ended.
            wait_for("its end", PATIENCE, || {
                let _ = self.cluster.kill(2, program);
                let left = self.cluster.host(2).processes(program);
                left.is_ok_and(|left| left.is_empty())
            })
            .unwrap();
        }
    }

    fn nothing_is_left(&self) {
        let mut left = Vec::new();
        wait_for("nothing left at the destination", PATIENCE, || {
            left = self.rest.grown(&self.cluster).unwrap();
            left.is_empty()
        })
        .unwrap_or_else(|error| panic!("{error:#}: {left:#?}"));
    }

    fn runs_at_the_source(&self) {
        let cluster = &self.cluster;
        assert_eq!(host_of(cluster, &self.scene.redis).unwrap(), "h1");
        self.scene.goes_on(cluster).unwrap();
        let view = cluster.json(&["inspect", &self.scene.redis]).unwrap();
        assert_eq!(view["generation"], 3, "{view}");
    }
}

#[test]
fn a_copy_that_is_lost_before_it_ran_goes_back_to_its_source_by_itself() {
    let mut stage = Stage::set();
    let (id, hold) = stage.commit();
    stage.lose_the_copy();
    hold.release().unwrap();
    let last = ended(&stage.cluster, &id).unwrap();
    assert_eq!(last["phase"], "aborted", "{last}");
    assert_eq!(last["recovered"], true, "{last}");
    let error = last["error"].as_str().unwrap();
    println!("{error}");
    for words in ["host `h2`", "never ran", "went back to host `h1`"] {
        assert!(error.contains(words), "no `{words}` in: {error}");
    }
    stage.runs_at_the_source();
    stage.nothing_is_left();
    // Nothing of it is in the way of the next one.
    stage.cluster.migrate(&stage.scene.redis, 2).unwrap();
    stage.scene.goes_on(&stage.cluster).unwrap();
    stage.scene.finish(&stage.cluster).unwrap();
}

#[test]
fn a_host_that_is_gone_after_the_commit_is_given_up_by_an_operator_alone() {
    let mut stage = Stage::set();
    let (id, _hold) = stage.commit();
    stage.cluster.kill(2, "godwit-agent").unwrap();
    stage.lose_the_copy();
    let last = stage.until(&id, "what is awaited", |view| {
        let awaits = view["awaits"].as_str().unwrap_or_default();
        awaits.contains("host `h2`") && awaits.contains("down")
    });
    assert_eq!(last["phase"], "committed", "{last}");
    let page = stage.cluster.ok(&["migration", "inspect", &id]).unwrap();
    let command = format!("godwit migration recover {id} --from-source");
    assert!(page.contains(&command), "{page}");
    for (refused, reason) in [
        (vec!["migration", "cancel", &id], "past its commit"),
        (
            vec!["migration", "recover", &id, "--from-source"],
            "not confirmed",
        ),
    ] {
        let text = stage.cluster.refused(&refused).unwrap();
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(view(&stage.cluster, &id).unwrap()["phase"], "committed");

    let recovered = stage
        .cluster
        .json(&["migration", "recover", &id, "--from-source", "--yes"])
        .unwrap();
    assert_eq!(recovered["phase"], "aborted", "{recovered}");
    assert_eq!(recovered["recovered"], true, "{recovered}");
    stage.runs_at_the_source();

    // It was not gone after all.
    stage.cluster.start_agent(2, &[], false).unwrap();
    stage.cluster.wait_for_hosts(3).unwrap();
    stage.nothing_is_left();
    stage.runs_at_the_source();
    stage.cluster.migrate(&stage.scene.redis, 2).unwrap();
    stage.scene.goes_on(&stage.cluster).unwrap();
    stage.scene.finish(&stage.cluster).unwrap();
}
