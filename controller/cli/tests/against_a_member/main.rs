//! The program itself against a member that plays its part: real TLS on loopback, answers that
//! the test chose. What a cluster does is tested elsewhere; here it is what `godwit` makes of it.

mod member;

use std::time::{Duration, Instant};

use godwit_proto::{
    control::{MigrateRequest, log_chunk::Source},
    failure,
};
use godwit_types::{
    CommandFailure, ContainerId, DrainLeft, DrainView, Estimate, Exit, FailureKind, MigrationId,
    Phase, Progress, Refusal, Round, Status,
};

use member::{Member, Ran, chunk, migration};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_without_a_leader_is_waited_for() {
    let member = Member::start().await;
    member.script().no_leader = 3;
    let ran = member.godwit(&["ps"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert!(
        lines[0].starts_with("CONTAINER ID   NAME    IMAGE"),
        "{ran:?}"
    );
    assert!(lines[1].contains("redis:latest") && lines[1].contains("running"));
    let ran = member.godwit(&["--format", "json", "ps", "-a"]).await;
    assert!(ran.stdout.starts_with("[{\"id\":") && ran.stdout.lines().count() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_does_not_start_has_dockers_exit_codes() {
    let member = Member::start().await;
    for (status, code, said) in [
        (
            failure::failed(CommandFailure::new(FailureKind::CommandNotFound, "no `x`")),
            127,
            "error: no `x`\nhint: the image has no such program; check COMMAND\n",
        ),
        (
            failure::failed(CommandFailure::new(
                FailureKind::CommandNotExecutable,
                "`x`",
            )),
            126,
            "error: `x`\nhint: check the program's mode",
        ),
        (
            failure::refused(Refusal::UnknownHost { host: "h9".into() }),
            125,
            "error: no host `h9`\nhint: `godwit host ls` lists the hosts\n",
        ),
    ] {
        member.script().run = Some(status);
        let ran = member.godwit(&["run", "-d", "redis", "x", "-y"]).await;
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(ran.stderr.starts_with(said), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
    let ran = member.godwit(&["run", "-d", "redis"]).await;
    assert_eq!((ran.code, ran.stdout.trim().len()), (0, 64), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_run_ends_as_the_container_did_though_its_log_broke_off() {
    let member = Member::start().await;
    {
        let mut script = member.script();
        // Cut another way when it is read again; the parts of a long line share an offset.
        script.logs.push(vec![
            Ok(chunk(Source::Stdout, "on", 8)),
            Ok(chunk(Source::Stdout, "e\n", 8)),
            Err(tonic::Status::unavailable("gone")),
        ]);
        script.logs.push(vec![
            Ok(chunk(Source::Stdout, "one\nmore\n", 12)),
            Ok(chunk(Source::Stderr, "two\n", 16)),
        ]);
        script.status = Status::Exited {
            exit: Exit { code: 7, at_ms: 1 },
        };
    }
    let ran = member.godwit(&["run", "redis"]).await;
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (7, "one\nmore\n", "two\n")
    );
    let ran = member.godwit(&["stop", "redis"]).await;
    assert_eq!(ran.stdout, "redis exited with code 7\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_watched_to_its_end_though_its_stream_broke_off() {
    let member = Member::start().await;
    member.script().migrate = vec![
        Ok(migration(Phase::Preflight)),
        Ok(migration(Phase::Frozen)),
        Err(tonic::Status::unavailable("gone")),
    ];
    member.script().migrated = Some(Phase::Done);
    let ran = member.godwit(&["migrate", "redis", "--to", "h2"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.stdout,
        "redis moved h1 → h2: freeze 123 ms, total 456 ms, 12.3 MiB\n"
    );
    let phases: Vec<_> = ran
        .stderr
        .lines()
        .map(|line| line.split_whitespace().nth(2))
        .collect();
    assert_eq!(
        phases,
        [Some("preflight"), Some("frozen"), Some("done")],
        "{ran:?}"
    );
    let ran = member
        .godwit(&["migrate", "redis", "--to", "h2", "--format", "json"])
        .await;
    assert!(ran.stdout.contains("\"phase\":\"done\"") && ran.stdout.lines().count() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_migration_says_why_and_where_the_container_is() {
    let member = Member::start().await;
    member.script().migrate = [Phase::Frozen, Phase::Aborting, Phase::Aborted]
        .map(|phase| Ok(migration(phase)))
        .into();
    let ran = member.godwit(&["migrate", "redis", "--to", "h2"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(
        ran.stderr
            .contains("error: `redis` was not moved\ncaused by: dump failed\n")
    );
    assert!(ran.stderr.contains("`redis` runs on h1 as before"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rounds_of_a_pre_copy_have_a_line_each() {
    let member = Member::start().await;
    let copying = |round, left, total| {
        let mut view = migration(Phase::Reserved);
        view.progress = Some(Progress {
            round,
            pages_left: left,
            pages_total: total,
            ..Progress::default()
        });
        Ok(view)
    };
    let mut copied = migration(Phase::PreCopy);
    let round = |number, sent_pages, dirty_pages| Round {
        number,
        sent_pages,
        dirty_pages,
        ..Round::default()
    };
    copied.rounds = vec![round(1, 900, 70), round(2, 70, 3)];
    member.script().migrate = vec![
        Ok(migration(Phase::Reserved)),
        copying(1, 900, 900),
        copying(1, 10, 900),
        copying(2, 70, 70),
        Ok(copied),
        Ok(migration(Phase::Done)),
    ];
    let ran = member.godwit(&["migrate", "redis", "--to", "h2"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines = ran.stderr.lines().map(|line| line.split_at(11).1.trim());
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "reserved     h2 is ready",
            "round        1: 900 pages, 70 written again",
            "round        2: 70 pages, 3 written again",
            "precopy      h2 has nearly everything",
            "done         h1 has let go",
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_to_migrate_is_passed_on_and_nonsense_is_refused_by_name() {
    let member = Member::start().await;
    member.script().migrate = vec![Ok(migration(Phase::Pending))];
    let line = "migrate redis --to h2 --mode precopy --max-downtime 1.5s --max-bandwidth 100M \
                --timeout 5m --compress on --priority high --detach";
    let ran = member.godwit(&words(line)).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "0101010101010101\n"));
    let expected = MigrateRequest {
        container: "redis".into(),
        to: "h2".into(),
        mode: "precopy".into(),
        max_downtime_ms: 1500,
        max_bandwidth: 100 << 20,
        timeout_ms: 300_000,
        dry_run: false,
        compress: "on".into(),
        priority: "high".into(),
    };
    assert_eq!(member.script().asked.take(), Some(expected));
    for (options, said) in [
        ("--mode sideways", "invalid value 'sideways'"),
        ("--compress zstd", "invalid value 'zstd'"),
        ("--max-downtime 300", "time `300` is not valid"),
        ("--max-downtime 0ms", "max-downtime `0ms` is not valid"),
        ("--max-downtime 2h", "max-downtime `7200000ms` is not valid"),
        ("--max-bandwidth 1", "max-bandwidth `1` is not valid"),
        ("--max-bandwidth fast", "size `fast` is not valid"),
        ("--timeout -1s", "error:"),
        (
            "--timeout 99999999h",
            "timeout `359999996400000ms` is not valid",
        ),
        ("--dry-run --detach", "cannot be used with"),
    ] {
        let line = format!("migrate redis --to h2 {options}");
        let ran = member.godwit(&words(&line)).await;
        assert!(
            ran.code != 0 && ran.stderr.contains(said),
            "{options}: {ran:?}"
        );
        assert_eq!(member.script().asked, None, "{options}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_names_every_reason_against() {
    let member = Member::start().await;
    member.script().estimate = Estimate {
        rounds: 2,
        resident_bytes: 1 << 20,
        ..Estimate::default()
    };
    let dry = ["migrate", "redis", "--to", "h2", "--dry-run"];
    let ran = member.godwit(&dry).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("memory:    1.0 MiB\n"), "{ran:?}");
    assert!(member.script().asked.take().unwrap().dry_run);
    member.script().estimate.against = vec!["host `h2` is down".into(), "no".into()];
    let ran = member.godwit(&dry).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stdout
            .ends_with("against:   host `h2` is down\nagainst:   no\n")
    );
    let json = [&dry[..], &["--format", "json"]].concat();
    let ran = member.godwit(&json).await;
    assert!(
        ran.stdout
            .contains("\"against\":[\"host `h2` is down\",\"no\"]"),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_is_cancelled_or_it_is_said_why_not() {
    let member = Member::start().await;
    let cancel = ["migration", "cancel", "01"];
    let ran = member.godwit(&cancel).await;
    let said = "migration 0101010101010101 is being taken back; redis still runs on h1\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (0, said), "{ran:?}");
    member.script().cancel = Some(failure::refused(Refusal::PastCommit {
        migration: MigrationId::from_bytes([1; 8]),
    }));
    let ran = member.godwit(&cancel).await;
    let said = "error: migration 0101010101010101 is past its commit point and can only go forward\n\
                hint: `godwit migration inspect 0101010101010101` says what it waits for, if it does\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, said), "{ran:?}");
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_another_cluster_are_named_as_the_cause_at_once() {
    let member = Member::start().await;
    let stranger = Member::start().await;
    // Trusts the member's authority, is not of it: the member refuses.
    let trusting = stranger.trusting(&member);
    let began = Instant::now();
    for admin in [trusting.path(), stranger.pointed_at(&member).path()] {
        let ran = Ran::of(admin, &["ps"]).await;
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(
            ran.stderr
                .contains("hint: the credentials may be of another cluster"),
            "{ran:?}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reading_is_no_reason_to_panic() {
    let member = Member::start().await;
    let admin = member.admin();
    let ran = tokio::task::spawn_blocking(move || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut godwit = std::process::Command::new(env!("CARGO_BIN_EXE_godwit"));
        godwit.arg("ps").env("GODWIT_CONFIG", admin).stdout(writer);
        godwit.output().unwrap()
    });
    let ran = ran.await.unwrap();
    assert_eq!(
        (ran.status.code(), ran.stderr.len()),
        (Some(0), 0),
        "{ran:?}"
    );
}

fn drain(moved: u32, left: &[(&str, bool)]) -> DrainView {
    let left = left.iter().map(|(name, stuck)| DrainLeft {
        container: ContainerId::from_bytes([0xab; 32]),
        name: name.parse().unwrap(),
        status: Status::Running,
        migration: None,
        phase: None,
        to: Some("h2".parse().unwrap()),
        place: None,
        attempts: u32::from(*stuck),
        reason: stuck.then(|| "no room".into()),
        stuck: *stuck,
    });
    DrainView {
        host: "h1".parse().unwrap(),
        draining: true,
        moved,
        left: left.collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_watched_to_its_end_and_exits_by_what_is_left() {
    let member = Member::start().await;
    member.script().drain = vec![drain(0, &[("a", false)]), drain(1, &[])];
    let ran = member.godwit(&words("host drain h1 --to h2,h3")).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stdout, "h1 is drained: 1 moved\n");
    assert!(ran.stderr.ends_with("moved        a h1 → h2\n"), "{ran:?}");
    assert_eq!(member.script().drained.take().unwrap().to, ["h2", "h3"]);

    member.script().drain = vec![drain(1, &[("b", true)])];
    let ran = member.godwit(&words("host drain h1")).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    let said = "error: `h1` is not empty: 1 moved, 1 left\nb: no room\nhint: ";
    assert!(ran.stderr.contains(said), "{ran:?}");

    member.script().drain = vec![drain(0, &[("a", false)])];
    let ran = member.godwit(&words("host drain h1 --detach")).await;
    assert_eq!(ran.stdout, "h1 is being drained: 1 to move\n", "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_are_set_and_printed() {
    let member = Member::start().await;
    let ran = member.godwit(&words("cluster set --migrations 5")).await;
    let said = "at once at most 5 migrations, 2 away from each host, 2 to each host\n";
    assert_eq!(ran.stdout, said, "{ran:?}");
    let ran = member.godwit(&words("cluster set --migrations-in 0")).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}
