//! Pre-copy as the cluster sees it: rounds, how they stand, and a migration that is taken back.

mod harness;

use std::time::Duration;

use godwit_proto::{
    control::{MigrateRequest, MigrationRequest},
    document, failure,
    failure::Problem,
};
use godwit_types::{
    Estimate, FailureKind, MigrationId, MigrationView, Phase, Progress, Refusal, Round,
};
use harness::{scene::*, *};
use tonic::Streaming;

fn request(id: &MigrationId) -> MigrationRequest {
    MigrationRequest {
        migration: id.to_string(),
    }
}

async fn next(stream: &mut Streaming<godwit_proto::v1::Document>) -> Option<MigrationView> {
    let item = stream.message().await.unwrap()?;
    Some(document::read(&item).unwrap())
}

/// The last of a stream.
async fn end(stream: &mut Streaming<godwit_proto::v1::Document>) -> MigrationView {
    let mut last = None;
    while let Some(view) = next(stream).await {
        last = Some(view);
    }
    last.unwrap()
}

#[test]
fn who_watches_sees_the_rounds_go_on() {
    let scene = Scene::new(3);
    let follower = scene.group.follower();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(follower);
        run(&mut control, "cache").await;
        let round = Round {
            number: 1,
            sent_bytes: 4096,
            sent_pages: 1,
            ..Round::default()
        };
        scene.source.rounds(vec![round.clone()]);
        scene.source.hold(Some("pre-copy"));
        let mut stream = control.migrate(to_h2("cache")).await.unwrap().into_inner();
        let id = next(&mut stream).await.unwrap().id;
        while next(&mut stream).await.unwrap().phase != Phase::Reserved {}
        let mut said = Progress {
            round: 1,
            pages_left: 9,
            ..Progress::default()
        };
        // Who is not its source is not heard.
        let other = Progress::default();
        scene.destination.tell(&id, other).await;
        for left in [9, 5] {
            said.pages_left = left;
            scene.source.tell(&id, said.clone()).await;
            let seen = next(&mut stream).await.unwrap();
            assert_eq!(seen.phase, Phase::Reserved);
            assert_eq!(seen.progress.as_ref(), Some(&said));
        }
        // Of one that is being moved nothing is asked.
        let dry = MigrateRequest {
            dry_run: true,
            ..to_h2("cache")
        };
        let mut dry = control.migrate(dry).await.unwrap().into_inner();
        let estimate = dry.message().await.unwrap().unwrap();
        let estimate: Estimate = document::read(&estimate).unwrap();
        assert_eq!(estimate.against.len(), 1, "{estimate:?}");
        assert!(estimate.against[0].contains("is being moved by migration"));
        let asked = control.inspect_migration(request(&id)).await.unwrap();
        let asked: MigrationView = document::read(asked.get_ref()).unwrap();
        assert_eq!(asked.progress, Some(said));
        scene.source.hold(None);
        let last = end(&mut stream).await;
        assert_eq!((last.phase, last.progress), (Phase::Done, None));
        assert_eq!(last.rounds, [round]);
        assert_eq!(last.times.bytes, 4096 + 777);
        assert_eq!(last.times.predicted_freeze_us, 5000);
    });
}

#[test]
fn a_migration_can_be_cancelled_until_its_commit() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        let container = run(&mut control, "cache").await;
        for (at, step) in WAY.iter().enumerate() {
            let (host, verb) = step.split_once(' ').unwrap();
            let agent = scene.agent(host);
            agent.hold(Some(verb));
            scene.log.lock().unwrap().clear();
            let mut stream = control.migrate(to_h2("cache")).await.unwrap().into_inner();
            let id = next(&mut stream).await.unwrap().id;
            let asked = || scene.log.lock().unwrap().last() == Some(&(*step).to_owned());
            wait_for(step, || async { asked().then_some(()) }).await;
            let cancelled = control.cancel_migration(request(&id)).await;
            if at >= 7 {
                // Past the commit.
                let status = cancelled.unwrap_err();
                let expected = Refusal::PastCommit { migration: id };
                let problem = failure::problem(&status);
                assert_eq!(problem, Some(Problem::Refused(expected)), "{step}");
                agent.hold(None);
                assert_eq!(end(&mut stream).await.phase, Phase::Done);
                break;
            }
            let view: MigrationView = document::read(cancelled.unwrap().get_ref()).unwrap();
            assert!(matches!(view.phase, Phase::Aborting | Phase::Aborted));
            // The act is still held: nobody waits for it.
            let last = end(&mut stream).await;
            assert_eq!(last.phase, Phase::Aborted, "{step}");
            assert_eq!(last.error.as_deref(), Some("cancelled by the operator"));
            assert_eq!(last.failure, None);
            agent.hold(None);
            let undo = scene.log.lock().unwrap().split_off(at + 1);
            assert!(undo.contains(&"h2 discard".to_owned()), "{undo:?}");
            assert!(undo.contains(&"h1 thaw".to_owned()), "{undo:?}");
            // Again: nothing happens.
            let again = control.cancel_migration(request(&id)).await.unwrap();
            let again: MigrationView = document::read(again.get_ref()).unwrap();
            assert_eq!(again, last);
            let view = inspect(&mut control, "cache").await;
            assert_eq!((view.host, view.migration), (container.host.clone(), None));
        }
        let nothing = control.cancel_migration(MigrationRequest {
            migration: "feed".to_owned(),
        });
        let status = nothing.await.unwrap_err();
        assert_eq!(status.message(), "no migration `feed`");
    });
}

#[test]
fn a_pre_copy_that_fails_or_takes_too_long_leaves_the_container_alone() {
    let scene = Scene::new(1);
    scene.runtime.block_on(async {
        let mut control = scene.group.control(0);
        run(&mut control, "cache").await;
        scene.source.fail_as("pre-copy", FailureKind::NotConverging);
        let view = migrate(&mut control, "cache").await;
        scene.source.fail(None);
        assert_eq!(view.phase, Phase::Aborted);
        assert_eq!(view.failure, Some(FailureKind::NotConverging));
        assert!(!scene.source.asked().contains(&"freeze".to_owned()));

        scene.source.hold(Some("pre-copy"));
        let request = MigrateRequest {
            timeout_ms: 300,
            ..to_h2("cache")
        };
        let began = std::time::Instant::now();
        let mut stream = control.migrate(request).await.unwrap().into_inner();
        let view = end(&mut stream).await;
        scene.source.hold(None);
        assert!(began.elapsed() < Duration::from_secs(10));
        let said = "pre-copy on host `h1`: not done 300 ms after the request";
        assert_eq!(view.error.as_deref(), Some(said));
        assert_eq!(view.phase, Phase::Aborted);
        // And a good one follows.
        assert_eq!(migrate(&mut control, "cache").await.phase, Phase::Done);
    });
}

#[test]
fn the_next_leader_hears_of_the_rounds_again() {
    let mut scene = Scene::new(3);
    let old = scene.group.leader();
    let id = scene.runtime.block_on(async {
        let mut control = scene.group.control(old);
        run(&mut control, "cache").await;
        scene.source.hold(Some("pre-copy"));
        let mut stream = control.migrate(to_h2("cache")).await.unwrap().into_inner();
        let id = next(&mut stream).await.unwrap().id;
        while next(&mut stream).await.unwrap().phase != Phase::Reserved {}
        id
    });
    scene.group.kill(old);
    let new = scene.group.leader();
    scene.runtime.block_on(async {
        hosts_up(&scene.group, new).await;
        let said = Progress {
            round: 3,
            ..Progress::default()
        };
        scene.source.tell(&id, said.clone()).await;
        let mut control = scene.group.control(new);
        wait_for("the word", || async {
            let asked = scene
                .group
                .control(new)
                .inspect_migration(request(&id))
                .await;
            let view: MigrationView = document::read(asked.ok()?.get_ref()).unwrap();
            (view.progress.as_ref() == Some(&said)).then_some(())
        })
        .await;
        control.cancel_migration(request(&id)).await.unwrap();
        wait_for("the end", || async {
            let views = migrations(&mut scene.group.control(new)).await.ok()?;
            views.into_iter().find(|view| view.phase == Phase::Aborted)
        })
        .await;
        scene.source.hold(None);
    });
}

#[test]
fn a_dry_run_changes_nothing_and_names_every_reason_against() {
    let scene = Scene::new(3);
    let follower = scene.group.follower();
    scene.runtime.block_on(async {
        let mut control = scene.group.control(follower);
        let before = run(&mut control, "cache").await;
        let expected = Estimate {
            rounds: 2,
            bytes: 1 << 20,
            predicted_freeze_us: 40_000,
            dirty_pages_per_s: 10,
            resident_bytes: 1 << 20,
            note: None,
            against: vec![],
        };
        scene.source.estimate(expected.clone());
        scene.log.lock().unwrap().clear();
        let dry = |change: fn(&mut MigrateRequest)| {
            let mut request = to_h2("cache");
            request.dry_run = true;
            change(&mut request);
            let mut control = scene.group.control(follower);
            async move {
                let mut stream = control.migrate(request).await?.into_inner();
                let only = stream.message().await?.unwrap();
                assert!(stream.message().await?.is_none());
                Ok::<Estimate, tonic::Status>(document::read(&only).unwrap())
            }
        };
        assert_eq!(dry(|_| ()).await.unwrap(), expected);
        let asked = ["h1 check-source", "h1 sample", "h2 check-destination"];
        assert_eq!(*scene.log.lock().unwrap(), asked);
        let tight = dry(|request| request.max_downtime_ms = 39).await.unwrap();
        let said = ["the freeze would take 40 ms, more than the 39 ms allowed"];
        assert_eq!(tight.against, said);
        scene.source.fail(Some("sample"));
        scene.destination.fail(Some("check-destination"));
        let failing = dry(|_| ()).await.unwrap();
        let said = [
            "sample: the script says so",
            "check-destination: the script says so",
        ];
        assert_eq!(failing.against, said);
        scene.source.fail(None);
        scene.destination.fail(None);
        let here = dry(|request| request.to = "h1".to_owned()).await.unwrap();
        assert_eq!(here.against, ["container `cache` is already on host `h1`"]);
        for (change, said) in [
            (
                (|request| request.mode = "sideways".to_owned()) as fn(&mut MigrateRequest),
                "`mode sideways` is not valid: the modes are auto, precopy, postcopy, stop",
            ),
            (
                |request| request.max_downtime_ms = u64::MAX,
                "`max-downtime 18446744073709551615ms` is not valid: from 1ms to 60m",
            ),
            (
                |request| request.compress = "zstd".to_owned(),
                "`compress zstd` is not valid: one of auto, on, off",
            ),
            (
                |request| request.max_bandwidth = 1,
                "`max-bandwidth 1` is not valid: at least 64k a second",
            ),
            (
                |request| request.container = "nothing".to_owned(),
                "no container `nothing`",
            ),
        ] {
            assert_eq!(dry(change).await.unwrap_err().message(), said);
        }
        assert_eq!(inspect(&mut control, "cache").await, before);
        assert_eq!(migrations(&mut control).await.unwrap(), []);
    });
}
