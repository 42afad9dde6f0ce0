//! The queue and drains through a real group, with agents that answer from a script.

mod harness;

use godwit_proto::{
    control::{
        DrainRequest, HostRequest, MigrateRequest, MigrationRequest, RunRequest, SetLimitsRequest,
        control_client::ControlClient,
    },
    document,
};
use godwit_types::{DrainView, MigrationLimits, MigrationView, Phase, Priority};
use harness::{scene::*, *};
use tonic::transport::Channel;

type Control = ControlClient<Channel>;

fn host(name: &str) -> HostRequest {
    HostRequest {
        host: name.to_owned(),
    }
}

async fn drain(control: &mut Control, name: &str) -> DrainView {
    let request = DrainRequest {
        host: name.to_owned(),
        to: Vec::new(),
    };
    document::read(control.drain_host(request).await.unwrap().get_ref()).unwrap()
}

async fn drained(control: &Control, name: &str) -> DrainView {
    wait_for("the end of a drain", || async {
        let answer = control.clone().inspect_drain(host(name)).await.ok()?;
        let view: DrainView = document::read(answer.get_ref()).unwrap();
        view.is_over().then_some(view)
    })
    .await
}

async fn limit(control: &mut Control, cluster: u32) -> MigrationLimits {
    let request = SetLimitsRequest {
        cluster,
        ..SetLimitsRequest::default()
    };
    document::read(control.set_limits(request).await.unwrap().get_ref()).unwrap()
}

/// Asks for a move to h2 and answers its first view.
async fn ask(control: &mut Control, name: &str, priority: &str) -> MigrationView {
    let request = MigrateRequest {
        priority: priority.to_owned(),
        ..to_h2(name)
    };
    let mut stream = control.migrate(request).await.unwrap().into_inner();
    document::read(&stream.message().await.unwrap().unwrap()).unwrap()
}

async fn phase(control: &Control, id: &str) -> Option<MigrationView> {
    let all = migrations(&mut control.clone()).await.ok()?;
    all.into_iter().find(|view| view.id.as_str() == id)
}

#[test]
fn one_waits_for_the_other_and_can_be_taken_out_or_put_before_it() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        for name in ["a", "b", "c", "d"] {
            run(&mut control, name).await;
        }
        let limits = limit(&mut control, 1).await;
        assert_eq!((limits.cluster, limits.out_of_host), (1, 2));
        scene.source.hold(Some("pre-copy"));
        let first = ask(&mut control, "a", "").await;
        assert_eq!((first.place, first.priority), (None, Priority::Normal));
        let low = ask(&mut control, "b", "low").await;
        assert_eq!((low.phase, low.place), (Phase::Pending, Some(1)));
        let third = ask(&mut control, "c", "").await;
        assert_eq!(third.place, Some(1));
        let high = ask(&mut control, "d", "high").await;
        assert_eq!(high.place, Some(1));
        let at = phase(&control, low.id.as_str()).await.unwrap();
        assert_eq!(at.place, Some(3));
        let bad = MigrateRequest {
            priority: "urgent".to_owned(),
            ..to_h2("a")
        };
        let refused = control.migrate(bad).await.unwrap_err();
        assert!(refused.message().contains("low, normal, high"));
        // Taken out at once, although the one under way does not move.
        let request = MigrationRequest {
            migration: third.id.to_string(),
        };
        let answer = control.cancel_migration(request).await.unwrap();
        let view: MigrationView = document::read(answer.get_ref()).unwrap();
        assert_eq!(view.phase, Phase::Aborted);
        assert_eq!(inspect(&mut control, "c").await.migration, None);
        // No host was asked about any of those that wait.
        assert_eq!(scene.source.operations("check-source"), 1);
        scene.source.hold(None);
        for id in [&first.id, &high.id, &low.id] {
            wait_for("the end of a migration", || async {
                let view = phase(&control, id.as_str()).await?;
                (view.phase == Phase::Done).then_some(())
            })
            .await;
        }
        let log = scene.log.lock().unwrap();
        let frozen = log.iter().filter(|line| *line == "h1 freeze").count();
        assert_eq!(frozen, 3);
    });
}

#[test]
fn a_drained_host_is_empty_takes_nothing_and_can_be_taken_back() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        for name in ["a", "b", "c", "d", "e"] {
            run(&mut control, name).await;
        }
        assert!(drain(&mut control, "h1").await.draining);
        let view = drained(&control, "h1").await;
        assert!(view.is_drained(), "{view:?}");
        assert_eq!(view.moved, 5);
        for view in containers(&mut control).await {
            assert_eq!(view.host.as_str(), "h2");
        }
        let drained_by = migrations(&mut control).await.unwrap();
        assert!(drained_by.iter().all(|m| m.priority == Priority::Low));
        let to_h1 = RunRequest {
            image: "redis".to_owned(),
            host: "h1".to_owned(),
            ..RunRequest::default()
        };
        let expected = "host `h1` is being drained and takes no containers";
        let refused = control.run(to_h1.clone()).await.unwrap_err();
        assert_eq!(refused.message(), expected);
        let back = MigrateRequest {
            to: "h1".to_owned(),
            ..to_h2("a")
        };
        let refused = control.migrate(back).await.unwrap_err();
        assert_eq!(refused.message(), expected);
        // Left to itself it goes to the other one, which has five.
        let anywhere = RunRequest {
            host: String::new(),
            ..to_h1.clone()
        };
        control.run(anywhere).await.unwrap();
        assert!(hosts(&mut control).await.unwrap()[0].draining);
        let answer = control.activate_host(host("h1")).await.unwrap();
        let view: DrainView = document::read(answer.get_ref()).unwrap();
        assert!(!view.draining);
        control.run(to_h1).await.unwrap();
        assert!(control.activate_host(host("h9")).await.is_err());
    });
}

#[test]
fn what_can_not_be_moved_is_tried_a_few_times_and_keeps_nobody() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        for name in ["a", "b"] {
            run(&mut control, name).await;
        }
        scene.source.fail(Some("check-source"));
        drain(&mut control, "h1").await;
        let view = drained(&control, "h1").await;
        assert_eq!((view.moved, view.left.len()), (0, 2));
        for left in &view.left {
            assert!(left.stuck && left.attempts == 4, "{left:?}");
            let reason = left.reason.as_deref().unwrap();
            assert!(reason.contains("the script says so"), "{reason}");
        }
        let tried = scene.source.operations("check-source");
        assert_eq!(tried, 8);
        // Nothing more is tried until it is asked for anew, and then everything is.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        assert_eq!(scene.source.operations("check-source"), tried);
        scene.source.fail(None);
        drain(&mut control, "h1").await;
        let view = drained(&control, "h1").await;
        assert_eq!((view.moved, view.is_drained()), (2, true));
        // Now there is nowhere to go: the other one is being left already.
        drain(&mut control, "h2").await;
        let view = drained(&control, "h2").await;
        let reason = view.left[0].reason.as_deref().unwrap();
        assert_eq!(reason, "host `h1` is being drained and takes no containers");
    });
}

#[test]
fn a_migration_of_a_drain_that_is_cancelled_is_not_begun_again() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        for name in ["a", "b"] {
            run(&mut control, name).await;
        }
        limit(&mut control, 1).await;
        scene.source.hold(Some("pre-copy"));
        drain(&mut control, "h1").await;
        let waiting = wait_for("one that waits", || async {
            let all = migrations(&mut control.clone()).await.ok()?;
            all.into_iter().find(|view| view.place == Some(1))
        })
        .await;
        let request = MigrationRequest {
            migration: waiting.id.to_string(),
        };
        control.cancel_migration(request).await.unwrap();
        scene.source.hold(None);
        let view = drained(&control, "h1").await;
        assert_eq!((view.moved, view.left.len()), (1, 1));
        assert_eq!(view.left[0].name, waiting.name);
        assert_eq!(
            view.left[0].reason.as_deref(),
            Some("cancelled by the operator")
        );
        assert_eq!(migrations(&mut control).await.unwrap().len(), 2);
    });
}

#[test]
fn the_next_leader_goes_on_with_a_drain_and_its_queue() {
    let mut scene = Scene::new(3);
    let leader = scene.group.leader();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(leader);
        for name in ["a", "b", "c", "d", "e"] {
            run(&mut control, name).await;
        }
        limit(&mut control, 1).await;
        scene.source.hold(Some("pre-copy"));
        drain(&mut control, "h1").await;
        wait_for("a queue", || async {
            let all = migrations(&mut control.clone()).await.ok()?;
            (all.iter().filter(|view| view.place.is_some()).count() == 4).then_some(())
        })
        .await;
    });
    scene.group.kill(leader);
    scene.source.hold(None);
    let next = scene.group.leader();
    scene.runtime.block_on(async {
        let view = drained(&scene.group.control(next), "h1").await;
        assert!(view.is_drained(), "{view:?}");
        assert_eq!(view.moved, 5);
    });
}
