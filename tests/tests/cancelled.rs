//! A migration that is taken back, in every phase before its commit: the container runs on where it
//! was at full speed with its connections, nothing of it is left where it was to go, and the next
//! migration succeeds.

use godwit_proto::{
    control::{MigrateRequest, MigrationRequest, control_client::ControlClient},
    document,
    tls::{self, Credentials, Role, Target},
};
use godwit_tests::{
    mover::{Mover, at_rest, ended, view},
    testbed::{Cluster, Options},
};
use godwit_types::{MigrationView, Phase};
use tonic::transport::Channel;

fn control(cluster: &Cluster) -> ControlClient<Channel> {
    let credentials = Credentials::load(&cluster.config_dir().join("admin")).unwrap();
    let target = Target {
        address: cluster.member_address(1),
        cluster: "testbed".to_owned(),
        role: Role::Member,
        name: None,
    };
    ControlClient::new(tls::channel(credentials.client_config().unwrap(), target))
}

/// Starts a migration and takes it back the moment it is seen in this phase. Answers how it ended,
/// and whether it was in time.
async fn cancel_in(
    cluster: &Cluster,
    container: &str,
    mode: &str,
    phase: Phase,
) -> (MigrationView, bool) {
    let mut control = control(cluster);
    let request = MigrateRequest {
        container: container.to_owned(),
        to: "h2".to_owned(),
        mode: mode.to_owned(),
        max_downtime_ms: 10_000,
        ..MigrateRequest::default()
    };
    let mut views = control.migrate(request).await.unwrap().into_inner();
    let mut cancelled = None;
    let mut last = None;
    while let Some(text) = views.message().await.unwrap() {
        let view: MigrationView = document::read(&text).unwrap();
        if view.phase >= phase && cancelled.is_none() {
            let request = MigrationRequest {
                migration: view.id.to_string(),
            };
            let answer = control.cancel_migration(request).await;
            println!(
                "{mode}: in phase {}: {:?}",
                view.phase,
                answer.as_ref().err()
            );
            cancelled = Some(answer.is_ok());
        }
        last = Some(view);
    }
    (last.unwrap(), cancelled.unwrap())
}

#[tokio::test]
async fn a_migration_that_is_taken_back_leaves_the_container_as_it_was_and_nothing_elsewhere() {
    tls::install_crypto();
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let options = ["--rss=64", "--rate=2", "--processes=2"];
    let mut mover = Mover::play(&cluster, "mover", 1, &[], &options).unwrap();
    let rest = at_rest(&cluster, 2).unwrap();
    let speed = mover.goes_on(&cluster).unwrap();

    // In the midst of a round, by the command line.
    let id = mover.begin_slowly(&cluster, 2).unwrap();
    // A look that sees no memory there now would see none that is left.
    let during = rest.grown(&cluster).unwrap();
    let memory = |name: &String| name.starts_with("memory");
    assert!(during.iter().any(memory), "{during:#?}");
    let said = cluster.refused(&["stop", "mover"]).unwrap();
    let said = said + &cluster.refused(&["rm", "-f", "mover"]).unwrap();
    let help = format!("`godwit migration cancel {id}`");
    assert_eq!(said.matches(&help).count(), 2, "{said}");
    cluster.ok(&["migration", "cancel", &id]).unwrap();
    let end = ended(&cluster, &id).unwrap();
    assert_eq!(end["phase"], "aborted", "{end}");
    assert!(
        end["error"].as_str().unwrap().contains("cancelled"),
        "{end}"
    );
    mover.is_untouched(&cluster, 1, speed).unwrap();
    rest.holds_again(&cluster).unwrap();
    // Once more it does no harm.
    cluster.ok(&["migration", "cancel", &id]).unwrap();

    for (mode, phases) in [
        (
            "precopy",
            [
                Phase::Pending,
                Phase::Preflight,
                Phase::Reserved,
                Phase::PreCopy,
                Phase::Frozen,
            ],
        ),
        (
            "precopy",
            [
                Phase::Transferred,
                Phase::Staged,
                Phase::Committed,
                Phase::Resumed,
                Phase::Done,
            ],
        ),
        (
            "stop",
            [
                Phase::Reserved,
                Phase::PreCopy,
                Phase::Frozen,
                Phase::Transferred,
                Phase::Staged,
            ],
        ),
    ] {
        for phase in phases {
            let (end, in_time) = cancel_in(&cluster, "mover", mode, phase).await;
            println!("{mode}, {phase}: {}, taken back: {in_time}", end.phase);
            if in_time {
                assert_eq!(end.phase, Phase::Aborted, "{end:?}");
                mover.is_untouched(&cluster, 1, speed).unwrap();
                rest.holds_again(&cluster).unwrap();
            } else {
                // Past the commit it only goes forward.
                assert_eq!(end.phase, Phase::Done, "{end:?}");
                mover.goes_on(&cluster).unwrap();
                mover.dismiss(&cluster).unwrap();
                cluster.migrate("mover", 1).unwrap();
                mover.watch(&cluster, 1).unwrap();
            }
            assert!(in_time || phase >= Phase::Frozen, "too late in {phase}");
        }
    }
    // Nothing of it counts any more.
    let id = mover
        .begin(&cluster, 2, &["--max-downtime", "10s"])
        .unwrap();
    assert_eq!(ended(&cluster, &id).unwrap()["phase"], "done");
    assert_eq!(
        view(&cluster, &id).unwrap()["error"],
        serde_json::Value::Null
    );
    assert_eq!(mover.verify(&cluster).unwrap(), 2 * 64 * 256);
    mover.dismiss(&cluster).unwrap();

    // Taken back, it can be stopped and removed.
    let back = mover
        .begin(&cluster, 1, &["--max-bandwidth", "2M"])
        .unwrap();
    cluster.ok(&["migration", "cancel", &back]).unwrap();
    assert_eq!(ended(&cluster, &back).unwrap()["phase"], "aborted");
    let stopped = cluster.json(&["stop", "-t", "60", "mover"]).unwrap();
    assert_eq!(stopped[0]["exit_code"], 0, "{stopped}");
    cluster.ok(&["rm", "mover"]).unwrap();
}
