//! A shim is killed, and another one takes its container up as what it was.

use super::*;

/// The parent of the container's init.
fn shim_of(pid: i32) -> i32 {
    stat_field(pid, 1).unwrap()
}

async fn pid(instance: &Instance) -> i32 {
    match instance.client.state().await.unwrap() {
        State::Running { pid, .. } | State::Frozen { pid, .. } => pid,
        other => panic!("{other:?}"),
    }
}

/// With SIGKILL. Returns when nobody has its socket any more.
async fn kill_shim(instance: &Instance, shim: i32) {
    sh(&format!("kill -9 {shim}"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while instance.client.state().await.is_ok() {
        assert!(Instant::now() < deadline, "shim {shim} lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether there was anything to adopt.
fn adopt(instance: &Instance) -> bool {
    let log = fs::File::options()
        .append(true)
        .open(instance.dir.join("shim.log"))
        .unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_godwit-shim"))
        .arg("--adopt")
        .arg(instance.dir.join("shim.json"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(log)
        .status()
        .unwrap();
    status.success()
}

/// The command line of a shim of the instance.
fn shims(instance: &Instance) -> Vec<i32> {
    let config = instance.dir.join("shim.json").display().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&line).contains(&config);
            ours.then(|| entry.file_name().to_str()?.parse().ok())?
        })
        .collect()
}

async fn exit_code(instance: &Instance) -> i64 {
    let path = instance.dir.join("exit.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(Instant::now() < deadline, "no exit code");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let exit: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    exit["code"].as_i64().unwrap()
}

async fn freeze(instance: &Instance) {
    let request = Request::Freeze {
        migration: migration(),
        carried: false,
    };
    instance.client.ask(request).await.unwrap();
}

#[tokio::test]
async fn a_container_outlives_its_shim_twice_and_moves_afterwards() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(20).await;
    let init = pid(&source).await;
    let mut shim = shim_of(init);
    for _ in 0..2 {
        kill_shim(&source, shim).await;
        let before = source.lines().len();
        assert!(adopt(&source));
        assert!(!adopt(&source), "one has it already");
        assert_eq!(pid(&source).await, init);
        source.wait_for_lines(before + 20).await;
        let all = shims(&source);
        assert_eq!(all.len(), 1, "{all:?}");
        shim = all[0];
    }
    freeze(&source).await;
    let target = Instance::new(base.path(), "b", &COUNT, &[]).unwrap();
    let arm = Request::Arm {
        migration: migration(),
    };
    target.client.ask(arm).await.unwrap();
    carry(&source, &target);
    let stage = Request::Stage { memory: None };
    target.client.ask(stage).await.unwrap();
    let held = target.lines().len();
    target.client.ask(Request::Resume).await.unwrap();
    source.client.ask(Request::Release).await.unwrap();
    target.wait_for_lines(held + 20).await;
    // And where it went.
    let shim = shim_of(pid(&target).await);
    kill_shim(&target, shim).await;
    assert!(adopt(&target));
    target.wait_for_lines(target.lines().len() + 20).await;
    let term = Request::Signal { signal: 15 };
    target.client.ask(term).await.unwrap();
    let code = exit_code(&target).await;
    assert!(matches!(code, 42 | 255), "{code}");
    println!("exit code {code}");
    consecutive(&target.lines());
    let kept = target.dir.join("sock.kept");
    let deadline = Instant::now() + Duration::from_secs(20);
    while kept.exists() {
        assert!(Instant::now() < deadline, "what was kept is left behind");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_frozen_stays_frozen_without_its_shim_and_thaws_with_the_next() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(20).await;
    let init = pid(&source).await;
    let shim = shim_of(init);
    freeze(&source).await;
    let held = source.lines().len();
    kill_shim(&source, shim).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(adopt(&source));
    let state = source.client.state().await.unwrap();
    assert!(
        matches!(&state, State::Frozen { migration: of, .. } if *of == migration()),
        "{state:?}"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(source.lines().len(), held);
    source.client.ask(Request::Thaw).await.unwrap();
    source.wait_for_lines(held + 20).await;
    consecutive(&source.lines());
    // And it can be frozen again, and released by a shim that never saw a CRIU.
    let shim = shims(&source)[0];
    freeze(&source).await;
    kill_shim(&source, shim).await;
    assert!(adopt(&source));
    source.client.ask(Request::Release).await.unwrap();
    assert!(!Path::new(&format!("/proc/{init}/exe")).exists());
}

#[tokio::test]
async fn a_container_that_ended_while_it_had_no_shim_has_an_unknown_exit_code() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(5).await;
    let init = pid(&source).await;
    kill_shim(&source, shim_of(init)).await;
    sh(&format!("kill -9 {init}"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(&format!("/proc/{init}")).exists() {
        assert!(Instant::now() < deadline, "nobody waits for {init}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(adopt(&source));
    assert_eq!(exit_code(&source).await, 255);
}

#[tokio::test]
async fn a_shim_that_is_killed_anywhere_in_a_freeze_leaves_a_container_that_runs_on() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(20).await;
    let mut seen = [0, 0];
    for step in 0..16 {
        let client = source.client.clone();
        let asked = tokio::spawn(async move {
            let request = Request::Freeze {
                migration: migration(),
                carried: false,
            };
            client.ask(request).await
        });
        tokio::time::sleep(Duration::from_millis(step * 20)).await;
        let shim = shims(&source)[0];
        kill_shim(&source, shim).await;
        let answered = asked.await.unwrap();
        assert!(adopt(&source));
        match source.client.state().await.unwrap() {
            State::Frozen { .. } => {
                seen[1] += 1;
                source.client.ask(Request::Thaw).await.unwrap();
            }
            State::Running { .. } => {
                assert!(answered.is_err(), "it was said to be frozen");
                seen[0] += 1;
            }
            other => panic!("{other:?}"),
        }
        let before = source.lines().len();
        source.wait_for_lines(before + 10).await;
    }
    println!("{} ran, {} were frozen", seen[0], seen[1]);
    consecutive(&source.lines());
    let kill = Request::Signal { signal: 9 };
    source.client.ask(kill).await.unwrap();
}
