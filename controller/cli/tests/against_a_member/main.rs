//! The program itself against a member that plays its part: real TLS on loopback, answers that
//! the test chose. What a cluster does is tested elsewhere; here it is what `godwit` makes of it.

mod member;

use std::time::{Duration, Instant};

use godwit_proto::{control::log_chunk::Source, failure};
use godwit_types::{CommandFailure, Exit, FailureKind, Phase, Refusal, Status};

use member::{Member, Ran, chunk};

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
        Ok(Phase::Preflight),
        Ok(Phase::Frozen),
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
    member.script().migrate = vec![Ok(Phase::Frozen), Ok(Phase::Aborting), Ok(Phase::Aborted)];
    let ran = member.godwit(&["migrate", "redis", "--to", "h2"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert!(
        ran.stderr
            .contains("error: `redis` was not moved\ncaused by: dump failed\n")
    );
    assert!(ran.stderr.contains("`redis` runs on h1 as before"));
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
