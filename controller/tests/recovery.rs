//! After the commit, through a real group, with agents that answer from a script.

mod harness;

use godwit_proto::{
    control::{MigrationRequest, control_client::ControlClient},
    failure,
    failure::Problem,
};
use godwit_types::{FailureKind, Generation, InstanceState, MigrationView, Phase, Refusal, Status};
use harness::{scene::*, *};
use tonic::transport::Channel;

async fn last(control: &mut ControlClient<Channel>) -> MigrationView {
    migrations(control).await.unwrap().remove(0)
}

fn request(view: &MigrationView) -> MigrationRequest {
    MigrationRequest {
        migration: view.id.to_string(),
    }
}

fn refusal(status: tonic::Status) -> Refusal {
    match failure::problem(&status) {
        Some(Problem::Refused(refusal)) => refusal,
        other => panic!("{status:?}: {other:?}"),
    }
}

#[test]
fn a_destination_that_says_that_it_never_resumed_gives_the_container_back() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        run(&mut control, "cache").await;
        scene
            .destination
            .fail_as("resume", FailureKind::NeverResumed);
        let view = migrate(&mut control, "cache").await;
        assert_eq!(view.phase, Phase::Aborted);
        assert!(view.recovered);
        assert_eq!(view.failure, Some(FailureKind::NeverResumed));
        let error = view.error.unwrap();
        assert!(error.contains("went back to host `h1`"), "{error}");
        assert!(!scene.source.asked().contains(&"release".to_owned()));
        let back = inspect(&mut control, "cache").await;
        assert_eq!((back.host.as_str(), back.generation), ("h1", Generation(3)));
        assert_eq!((back.status, back.migration), (Status::Running, None));
        assert_eq!(scene.source.generation(&back.id), Some(Generation(3)));
        assert_eq!(scene.destination.generation(&back.id), None);
        // And the next one succeeds.
        scene.destination.fail(None);
        let view = migrate(&mut control, "cache").await;
        assert_eq!((view.phase, view.recovered), (Phase::Done, false));
        let there = inspect(&mut control, "cache").await;
        assert_eq!(
            (there.host.as_str(), there.generation),
            ("h2", Generation(4))
        );
    });
}

#[test]
fn any_other_failure_to_resume_is_waited_out() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        run(&mut control, "cache").await;
        let kinds = [
            FailureKind::NotFound,
            FailureKind::WrongState,
            FailureKind::Stale,
            FailureKind::Internal,
        ];
        scene.destination.fail_as("resume", kinds[0]);
        let mut stream = control.migrate(to_h2("cache")).await.unwrap().into_inner();
        stream.message().await.unwrap();
        for kind in kinds {
            let before = scene.destination.operations("resume");
            scene.destination.fail_as("resume", kind);
            wait_for("another attempt", || async {
                (scene.destination.operations("resume") > before).then_some(())
            })
            .await;
            let view = wait_for("what is awaited", || async {
                let view = last(&mut scene.group.control(0)).await;
                view.awaits.is_some().then_some(view)
            })
            .await;
            assert_eq!(view.phase, Phase::Committed, "{kind:?}");
            let awaits = view.awaits.unwrap();
            assert!(awaits.contains("for host `h2` to resume"), "{awaits}");
        }
        assert!(!scene.source.asked().contains(&"thaw".to_owned()));
        scene.destination.fail(None);
        while stream.message().await.unwrap().is_some() {}
        let view = last(&mut scene.group.control(0)).await;
        assert_eq!((view.phase, view.awaits), (Phase::Done, None));
    });
}

#[test]
fn an_operator_recovers_from_the_source_when_the_destination_is_gone() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        // What has ended can't be recovered.
        run(&mut control, "other").await;
        let done = migrate(&mut control, "other").await;
        let refused = control.recover_migration(request(&done)).await.unwrap_err();
        assert!(matches!(refusal(refused), Refusal::NotRecoverable { .. }));
        assert!(!scene.source.asked().contains(&"thaw".to_owned()));
        run(&mut control, "cache").await;
        scene.destination.hold(Some("resume"));
        control.migrate(to_h2("cache")).await.unwrap();
        wait_for("the resume", || async {
            let asked = scene.destination.asked();
            let resumes = asked.iter().filter(|asked| *asked == "resume");
            (resumes.count() == 2).then_some(())
        })
        .await;
        let view = last(&mut control).await;
        assert_eq!(view.phase, Phase::Committed);
        // It is up, and says that it runs.
        let runs = InstanceState::Running { pid: 9 };
        let id = view.container.clone();
        let generation = scene.destination.generation(&id).unwrap();
        assert_eq!(generation, Generation(2));
        scene.destination.is(&id, runs);
        let refused = wait_for("the report", || async {
            let mut control = scene.group.control(0);
            if inspect(&mut control, "cache").await.pid != Some(9) {
                return None;
            }
            control.recover_migration(request(&view)).await.err()
        })
        .await;
        assert!(matches!(refusal(refused), Refusal::RunsThere { .. }));
        // Its machine is switched off.
        scene.destination.down(true);
        wait_for("the silence", || async {
            let view = last(&mut scene.group.control(0)).await;
            view.awaits.filter(|awaits| awaits.contains("down"))
        })
        .await;
        control.recover_migration(request(&view)).await.unwrap();
        let ended = wait_for("the end", || async {
            let view = last(&mut scene.group.control(0)).await;
            view.phase.is_final().then_some(view)
        })
        .await;
        assert_eq!((ended.phase, ended.recovered), (Phase::Aborted, true));
        // Asked twice, it is as it is.
        control.recover_migration(request(&view)).await.unwrap();
        let back = inspect(&mut control, "cache").await;
        assert_eq!((back.host.as_str(), back.generation), ("h1", Generation(3)));
        assert_eq!(back.migration, None);
        assert_eq!(scene.source.generation(&id), Some(Generation(3)));
        assert!(!scene.destination.asked().contains(&"discard".to_owned()));
        // It comes back with what it had.
        scene.destination.down(false);
        wait_for("the discard", || async {
            scene.destination.generation(&id).is_none().then_some(())
        })
        .await;
        assert!(scene.destination.asked().contains(&"discard".to_owned()));
        let back = inspect(&mut control, "cache").await;
        assert_eq!((back.host.as_str(), back.status), ("h1", Status::Running));
    });
}
