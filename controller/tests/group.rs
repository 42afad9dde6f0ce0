//! The group itself: elections, forwarding, disks, snapshots.

mod harness;

use std::time::{Duration, Instant};

use godwit_proto::{control::CreateNetworkRequest, failure, failure::Problem};
use godwit_types::Refusal;
use harness::*;

fn network(name: &str) -> CreateNetworkRequest {
    CreateNetworkRequest {
        name: name.to_owned(),
        subnet: String::new(),
    }
}

#[test]
fn one_member_leads_alone_and_keeps_its_state() {
    let mut group = Group::start(1, 1000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    group.leader();
    runtime.block_on(async {
        let mut control = group.control(0);
        control.create_network(network("red")).await.unwrap();
        let status = control.create_network(network("red")).await.unwrap_err();
        let problem = failure::problem(&status);
        assert!(
            matches!(
                problem,
                Some(Problem::Refused(Refusal::NetworkInUse { .. }))
            ),
            "{status:?}"
        );
    });
    let began = Instant::now();
    group.stop(0);
    assert!(began.elapsed() < Duration::from_secs(2));
    group.restart(0);
    group.leader();
    runtime.block_on(async {
        let found = networks(&mut group.control(0)).await.unwrap();
        let names: Vec<_> = found.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["default", "red"]);
    });
}

#[test]
fn a_follower_forwards_and_a_new_leader_knows_everything() {
    let mut group = Group::start(3, 1000);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let old = group.leader();
    let follower = group.follower();
    runtime.block_on(async {
        let mut control = group.control(follower);
        control.create_network(network("red")).await.unwrap();
        // What the follower's leader refused is refused in the same words.
        let status = control.create_network(network("red")).await.unwrap_err();
        assert!(failure::problem(&status).is_some(), "{status:?}");
        let views = wait_for("three reachable members", || async {
            let views = members(&mut group.control(follower)).await;
            views.iter().all(|view| view.reachable).then_some(views)
        })
        .await;
        assert_eq!(views.iter().filter(|view| view.leader).count(), 1);
        assert!(views[old].leader);
    });
    let began = Instant::now();
    group.kill(old);
    let new = group.leader();
    assert_ne!(new, old);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let other = group.follower();
    runtime.block_on(async {
        assert_eq!(networks(&mut group.control(other)).await.unwrap().len(), 2);
        let mut control = group.control(new);
        control.create_network(network("green")).await.unwrap();
    });
    // The one that was away hears of it.
    group.restart(old);
    runtime.block_on(async {
        wait_for("the old leader to answer", || async {
            let found = networks(&mut group.control(old)).await.ok()?;
            (found.len() == 3).then_some(())
        })
        .await;
    });
    // All go, all come back.
    for at in 0..3 {
        group.stop(at);
    }
    for at in 0..3 {
        group.restart(at);
    }
    group.leader();
    runtime.block_on(async {
        assert_eq!(networks(&mut group.control(0)).await.unwrap().len(), 3);
    });
}

#[test]
fn a_stopped_leader_hands_over_at_once() {
    let mut group = Group::start(3, 1000);
    let old = group.leader();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        wait_for("members that hear each other", || async {
            let views = members(&mut group.control(old)).await;
            views.iter().all(|view| view.reachable).then_some(())
        })
        .await;
    });
    let began = Instant::now();
    group.stop(old);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_ne!(group.leader(), old);
}

#[test]
fn without_a_majority_nobody_answers() {
    let mut group = Group::start(3, 1000);
    group.leader();
    group.kill(0);
    group.kill(1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        wait_for("an honest answer", || async {
            let status = networks(&mut group.control(2)).await.err()?;
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
            status.message().contains("no leader").then_some(())
        })
        .await;
    });
}

#[test]
fn a_member_that_was_away_too_long_gets_a_snapshot() {
    let mut group = Group::start(3, 20);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = group.leader();
    let away = group.follower();
    group.kill(away);
    runtime.block_on(async {
        let mut control = group.control(leader);
        for number in 0..60 {
            let name = format!("n{number}");
            control.create_network(network(&name)).await.unwrap();
        }
    });
    group.restart(away);
    // Its own state, as the leader of the two that are left would need it.
    runtime.block_on(async {
        wait_for("the log of the one that was away", || async {
            let views = members(&mut group.control(leader)).await;
            (views[away].applied >= 60).then_some(())
        })
        .await;
    });
    group.kill(leader);
    group.leader();
    runtime.block_on(async {
        let found = networks(&mut group.control(away)).await.unwrap();
        assert_eq!(found.len(), 61);
    });
}
