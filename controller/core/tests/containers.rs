//! Containers and networks over the pure state.

mod cluster;

use cluster::*;
use godwit_core::{
    Applied, Candidate, Command, State, apply, choose, find_container, find_network,
};
use godwit_types::{ContainerName, Exit, InstanceState, NetworkName, Refusal, Status};

fn remove(number: u8, force: bool) -> Command {
    Command::BeginRemove {
        container: container(number),
        force,
        volumes: false,
    }
}

fn network(name: &str, subnet: Option<&str>) -> Command {
    Command::CreateNetwork {
        name: NetworkName::new(name).unwrap(),
        subnet: subnet.map(|text| text.parse().unwrap()),
    }
}

#[test]
fn a_name_and_an_address_are_used_once_and_freed() {
    let mut state = cluster();
    must(&mut state, &[create(2, 2, Some("default"))]);
    let address = |state: &State, n| {
        let spec = &state.containers[&container(n)].spec;
        spec.network.as_ref().unwrap().address.to_string()
    };
    assert_eq!(address(&state, 1), "10.88.0.2");
    assert_eq!(address(&state, 2), "10.88.0.3");
    let Command::CreateContainer(mut twin) = create(3, 2, None) else {
        unreachable!()
    };
    twin.name = name(1);
    assert!(matches!(
        refused(&mut state, &Command::CreateContainer(twin)),
        Refusal::NameInUse { .. }
    ));
    assert!(matches!(
        refused(&mut state, &remove(1, false)),
        Refusal::StillRunning { .. }
    ));
    let removed = Command::Removed {
        container: container(1),
    };
    must(&mut state, &[remove(1, true), removed.clone()]);
    assert_eq!(apply(&mut state, &removed), Ok(Applied::Unchanged));
    must(&mut state, &[create(4, 3, Some("default"))]);
    assert_eq!(address(&state, 4), "10.88.0.2");
}

#[test]
fn a_full_network_refuses() {
    let mut state = cluster();
    must(&mut state, &[network("small", Some("10.200.0.0/29"))]);
    for number in 10..15 {
        must(&mut state, &[create(number, 1, Some("small"))]);
    }
    assert!(matches!(
        refused(&mut state, &create(20, 1, Some("small"))),
        Refusal::NoFreeAddress { .. }
    ));
    assert!(matches!(
        refused(&mut state, &create(20, 1, Some("other"))),
        Refusal::UnknownNetwork { .. }
    ));
}

#[test]
fn networks_do_not_overlap() {
    let mut state = cluster();
    assert!(matches!(
        refused(&mut state, &network("a", Some("10.0.0.0/8"))),
        Refusal::SubnetOverlaps { .. }
    ));
    must(&mut state, &[network("a", None), network("b", None)]);
    let a = &find_network(&state, "a").unwrap().spec;
    assert_eq!((a.vni, a.subnet.to_string().as_str()), (2, "10.89.0.0/16"));
    assert!(matches!(
        refused(&mut state, &network("a", None)),
        Refusal::NetworkInUse { .. }
    ));
    assert!(matches!(
        refused(&mut state, &network("none", None)),
        Refusal::Invalid { .. }
    ));
}

#[test]
fn reports_become_statuses() {
    let mut state = cluster();
    let status = |state: &State| state.containers[&container(1)].status.clone();
    let exit = Exit { code: 3, at_ms: 9 };
    must(
        &mut state,
        &[report(1, 1, 1, Some(InstanceState::Exited { exit }))],
    );
    assert_eq!(status(&state), Status::Exited { exit });
    // An ended instance that its host does not list stays ended.
    assert_eq!(
        apply(&mut state, &report(1, 1, 1, None)),
        Ok(Applied::Unchanged)
    );
    must(&mut state, &[running(1, 1, 1), report(1, 1, 1, None)]);
    assert!(matches!(status(&state), Status::Failed { .. }));
    must(&mut state, &[create(2, 1, None)]);
    // Its host is still making it.
    assert_eq!(
        apply(&mut state, &report(1, 2, 1, None)),
        Ok(Applied::Unchanged)
    );
}

#[test]
fn a_stop_that_failed_leaves_it_movable() {
    let mut state = cluster();
    let stop = Command::BeginStop {
        container: container(1),
        grace_ms: 10,
    };
    must(&mut state, std::slice::from_ref(&stop));
    assert_eq!(apply(&mut state, &stop), Ok(Applied::Unchanged));
    assert!(matches!(
        refused(&mut state, &start(1, 1, 2)),
        Refusal::NotRunning { .. }
    ));
    let cancel = Command::CancelStop {
        container: container(1),
    };
    must(&mut state, &[cancel, start(1, 1, 2)]);
}

#[test]
fn a_container_is_found_by_name_id_or_beginning() {
    let mut state = cluster();
    must(&mut state, &[create(0x11, 1, None), create(0x12, 1, None)]);
    assert_eq!(find_container(&state, "c1").unwrap().id, container(1));
    assert_eq!(find_container(&state, "0101").unwrap().id, container(1));
    assert_eq!(find_container(&state, "12").unwrap().id, container(0x12));
    for (text, ambiguous) in [("1", true), ("zz", false), ("", false)] {
        let refusal = find_container(&state, text).unwrap_err();
        let found = matches!(refusal, Refusal::AmbiguousContainer { .. });
        assert_eq!(found, ambiguous, "{text}");
    }
    assert!(ContainerName::new("c1").is_ok());
}

#[test]
fn the_emptiest_host_with_the_image_is_chosen() {
    let state = cluster();
    let candidate = |number, up, has_image| Candidate {
        host: host(number),
        up,
        has_image,
    };
    let all = [
        candidate(1, true, true),
        candidate(2, false, true),
        candidate(3, true, false),
    ];
    assert_eq!(choose(&state, &all), Some(host(1)));
    let all = [
        candidate(1, true, true),
        candidate(3, true, true),
        candidate(2, true, true),
    ];
    assert_eq!(choose(&state, &all), Some(host(2)));
    assert_eq!(choose(&state, &[]), None);
}
