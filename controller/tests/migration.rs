//! Containers and migrations through a real group, with agents that answer from a script.

mod harness;

use std::time::Duration;

use godwit_proto::{
    control::{RemoveRequest, RunRequest, StopRequest},
    document, failure,
    failure::Problem,
};
use godwit_types::{
    CommandFailure, ContainerView, FailureKind, Generation, Phase, Refusal, Status,
};
use harness::{agent::Agent, scene::*, *};

fn refusal(status: tonic::Status) -> Refusal {
    match failure::problem(&status) {
        Some(Problem::Refused(refusal)) => refusal,
        other => panic!("{status:?}: {other:?}"),
    }
}

#[test]
fn a_container_runs_stops_and_is_removed() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        let view = run(&mut control, "cache").await;
        assert_eq!((view.status, view.pid), (Status::Running, Some(42)));
        assert_eq!(view.spec.network.unwrap().address.to_string(), "10.88.0.2");
        // Without a name and a host: both are found.
        let request = RunRequest {
            image: "redis".to_owned(),
            network: "none".to_owned(),
            ..RunRequest::default()
        };
        let other = control.run(request.clone()).await.unwrap();
        let other: ContainerView = document::read(other.get_ref()).unwrap();
        assert_eq!((other.host.as_str(), other.spec.network), ("h2", None));
        for (bad, expected) in [
            (
                RunRequest {
                    image: "nginx".to_owned(),
                    ..request.clone()
                },
                "no host is up that has image `nginx:latest`",
            ),
            (
                RunRequest {
                    host: "h9".to_owned(),
                    ..request.clone()
                },
                "no host `h9`",
            ),
            (
                RunRequest {
                    name: "cache".to_owned(),
                    ..request.clone()
                },
                "container name `cache` is in use",
            ),
        ] {
            let status = control.run(bad).await.unwrap_err();
            assert_eq!(status.message(), expected);
            refusal(status);
        }
        let remove = |force| RemoveRequest {
            container: "cache".to_owned(),
            force,
            volumes: false,
        };
        let refused = control.remove_container(remove(false)).await.unwrap_err();
        assert!(matches!(refusal(refused), Refusal::StillRunning { .. }));
        let stop = StopRequest {
            container: "cache".to_owned(),
            grace_ms: 100,
            own_grace: false,
        };
        let stopped = control.stop_container(stop).await.unwrap();
        let stopped: ContainerView = document::read(stopped.get_ref()).unwrap();
        assert_eq!(stopped.status.to_string(), "exited (143)");
        control.remove_container(remove(false)).await.unwrap();
        assert_eq!(containers(&mut control).await.len(), 1);
        // A run that fails leaves nothing behind.
        scene.source.fail(Some("run"));
        let request = RunRequest {
            name: "broken".to_owned(),
            host: "h1".to_owned(),
            ..request
        };
        let status = control.run(request).await.unwrap_err();
        let expected = CommandFailure::new(FailureKind::Internal, "the script says so");
        assert_eq!(failure::problem(&status), Some(Problem::Failed(expected)));
        assert_eq!(containers(&mut control).await.len(), 1);
        // What ends by itself is noticed.
        scene.destination.exit(&other.id, 3);
        wait_for("the exit", || async {
            let view = inspect(&mut scene.group.control(0), other.name.as_str()).await;
            (view.status.to_string() == "exited (3)").then_some(())
        })
        .await;
    });
}

#[test]
fn a_container_moves_to_the_other_host() {
    let scene = Scene::new(3);
    let follower = scene.group.follower();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(follower);
        run(&mut control, "cache").await;
        scene.log.lock().unwrap().clear();
        let view = migrate(&mut control, "cache").await;
        assert_eq!((view.phase, view.error), (Phase::Done, None));
        assert_eq!(*scene.log.lock().unwrap(), WAY);
        let steps: Vec<_> = view.times.steps.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            steps,
            ["freeze", "transfer", "stage", "raft commit", "resume"]
        );
        assert_eq!(view.times.bytes, 777);
        assert!(view.times.freeze_us > 0 && view.times.total_us > 0);
        let times = &view.times;
        println!(
            "freeze as the leader saw it: {} µs, {:?}",
            times.freeze_us, times.steps
        );
        let moved = inspect(&mut control, "cache").await;
        assert_eq!(
            (moved.host.as_str(), moved.generation),
            ("h2", Generation(2))
        );
        assert_eq!((moved.status, moved.pid), (Status::Running, Some(43)));
        // Both agents were told where the address is now.
        for agent in [&scene.source, &scene.destination] {
            wait_for("the endpoint", || async {
                let table = agent.table("default")?;
                let endpoint = table.endpoints.first()?;
                (endpoint.host.as_str() == "h2").then_some(())
            })
            .await;
        }
        let refused = control.migrate(to_h2("cache")).await.unwrap_err();
        assert!(matches!(refusal(refused), Refusal::AlreadyThere { .. }));
        let refused = control.migrate(to_h2("nothing")).await.unwrap_err();
        assert!(matches!(refusal(refused), Refusal::UnknownContainer { .. }));
    });
}

#[test]
fn a_failure_at_every_step_undoes_both_sides() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        run(&mut control, "cache").await;
        for (at, step) in WAY[..7].iter().enumerate() {
            let (host, verb) = step.split_once(' ').unwrap();
            let agent = scene.agent(host);
            agent.fail(Some(verb));
            scene.log.lock().unwrap().clear();
            let view = migrate(&mut control, "cache").await;
            agent.fail(None);
            assert_eq!(view.phase, Phase::Aborted, "{step}");
            assert!(view.error.unwrap().contains(verb), "{step}");
            let mut asked = scene.log.lock().unwrap().clone();
            let undo = asked.split_off(at + 1);
            assert_eq!(asked, WAY[..=at]);
            assert_eq!(undo.len(), 2, "{undo:?}");
            assert!(undo.contains(&"h2 discard".to_owned()));
            assert!(undo.contains(&"h1 thaw".to_owned()));
            let view = inspect(&mut control, "cache").await;
            assert_eq!((view.host.as_str(), view.generation), ("h1", Generation(1)));
            assert_eq!((view.status, view.migration), (Status::Running, None));
        }
        assert!(!scene.destination.asked().contains(&"resume".to_owned()));
        // And a good one follows.
        let view = migrate(&mut control, "cache").await;
        assert_eq!(view.phase, Phase::Done);
    });
}

#[test]
fn a_container_that_moves_is_left_alone() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        run(&mut control, "cache").await;
        scene.destination.hold(Some("stage"));
        let mut stream = control.migrate(to_h2("cache")).await.unwrap().into_inner();
        stream.message().await.unwrap();
        for status in [
            control.migrate(to_h2("cache")).await.unwrap_err(),
            control
                .stop_container(StopRequest {
                    container: "cache".to_owned(),
                    grace_ms: 1,
                    own_grace: false,
                })
                .await
                .unwrap_err(),
            control
                .remove_container(RemoveRequest {
                    container: "cache".to_owned(),
                    force: true,
                    volumes: false,
                })
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(refusal(status), Refusal::Migrating { .. }));
        }
        scene.destination.hold(None);
        while stream.message().await.unwrap().is_some() {}
        assert_eq!(inspect(&mut control, "cache").await.host.as_str(), "h2");
    });
}

/// The leader vanishes while this command is under way; the next one goes on from there.
fn leader_change_at(agent: fn(&Scene) -> &Agent, verb: &'static str) {
    let mut scene = Scene::new(3);
    let old = scene.group.leader();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(old);
        run(&mut control, "cache").await;
        agent(&scene).hold(Some(verb));
        control.migrate(to_h2("cache")).await.unwrap();
        wait_for("the command", || async {
            let asked = agent(&scene).asked();
            asked.iter().any(|asked| asked == verb).then_some(())
        })
        .await;
        // So that what is not awaited inside the freeze is written down.
        tokio::time::sleep(Duration::from_millis(100)).await;
    });
    scene.group.kill(old);
    let new = scene.group.leader();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(new);
        wait_for("the command again", || async {
            let asked = agent(&scene).asked();
            let times = asked.iter().filter(|asked| *asked == verb).count();
            (times >= 2).then_some(())
        })
        .await;
        agent(&scene).hold(None);
        let view = wait_for("the end", || async {
            let views = migrations(&mut scene.group.control(new)).await.ok()?;
            views.into_iter().find(|view| view.phase.is_final())
        })
        .await;
        assert_eq!((view.phase, view.error), (Phase::Done, None));
        assert!(view.times.freeze_us > 0);
        assert_eq!(agent(&scene).operations(verb), 1, "the same operation id");
        let moved = inspect(&mut control, "cache").await;
        assert_eq!(
            (moved.host.as_str(), moved.generation),
            ("h2", Generation(2))
        );
    });
}

#[test]
fn the_next_leader_goes_on_before_the_commit() {
    leader_change_at(|scene| &scene.source, "transfer");
}

#[test]
fn the_next_leader_goes_on_after_the_commit() {
    leader_change_at(|scene| &scene.destination, "resume");
}
