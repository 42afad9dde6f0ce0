//! Private memory that goes ahead of the freeze, by a session and a store in this process.

use std::fs;

use godwit_runtime::{
    memory::{Frame, Session, Store},
    shim::protocol::{Request, State},
};

use super::{Instance, carry, consecutive, migration, pids};

/// Fills some memory, and then checks all of it and changes some, again and again.
const REMEMBER: [&str; 3] = [
    "awk",
    "BEGIN { for (i = 0; i < 40000; i++) a[i] = \"some text of a certain length \" i; \
     for (n = 0; ; n++) { for (i = 0; i < 40000; i++) { \
     if (a[i] !~ (\" \" i \"$\")) { print \"bad \" i; exit 1 } \
     if (i % 7 == n % 7) a[i] = \"changed in round \" n \" \" i } \
     print n; fflush() } }",
    "",
];

#[tokio::test]
async fn memory_is_carried_while_it_changes() {
    let base = tempfile::tempdir().unwrap();
    let command = &REMEMBER[..2];
    let Some(source) = Instance::new(base.path(), "a", command, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(3).await;

    let mut session = Session::default();
    let store = Store::new(1 << 30);
    let mut written = Vec::new();
    for _ in 0..3 {
        let mut keep = |frame: Frame| store.apply(&frame).map_err(std::io::Error::other);
        let stats = session.round(&pids(&source), &mut keep).unwrap();
        println!("{stats:?}");
        assert_eq!(stats.untracked, 0);
        written.push(stats.written);
    }
    assert!(
        written[1] < written[0],
        "later rounds are smaller: {written:?}"
    );

    let target = Instance::new(base.path(), "b", command, &[]).unwrap();
    target
        .client
        .ask(Request::Arm {
            migration: migration(),
        })
        .await
        .unwrap();
    let steps = source
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: true,
        })
        .await
        .unwrap();
    println!("{steps:?}");
    let mut keep = |frame: Frame| store.apply(&frame).map_err(std::io::Error::other);
    println!("{:?}", session.finish(&pids(&source), &mut keep).unwrap());
    let left = fs::metadata(source.dir.join("checkpoint/criu/pages-1.img"))
        .unwrap()
        .len();
    assert!(left < 4 << 20, "{left} bytes of pages were dumped");
    carry(&source, &target);
    let index = store.index().unwrap();
    let memory = Some(index.at());
    let steps = target.client.ask(Request::Stage { memory }).await.unwrap();
    println!("{steps:?}");
    drop(index);
    let held = target.lines().len();
    println!("{:?}", target.client.ask(Request::Resume).await.unwrap());
    source.client.ask(Request::Release).await.unwrap();
    let lines = target.wait_for_lines(held + 5).await;
    consecutive(&lines);

    let mut state = target.client.state().await.unwrap();
    while matches!(state, State::Running { filling: true, .. }) {
        state = target.client.watch(state).await.unwrap();
    }
    assert!(
        matches!(state, State::Running { filling: false, .. }),
        "{state:?}"
    );
    let lines = target.wait_for_lines(lines.len() + 3).await;
    consecutive(&lines);
    target
        .client
        .ask(Request::Signal { signal: 9 })
        .await
        .unwrap();
}
