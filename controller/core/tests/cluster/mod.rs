//! A small cluster for the tests: three hosts, and commands with names that read well.

#![allow(dead_code)]

use std::collections::BTreeSet;

use godwit_core::{Applied, Command, NewContainer, Record, RecoveredBy, State, apply};
use godwit_types::{
    ContainerId, ContainerName, Digest, FreezeStep, Generation, HostName, InstanceState, Limits,
    MigrationId, MigrationLimits, MigrationOptions, NetworkName, Phase, Priority, Refusal, Round,
};

pub fn host(number: u8) -> HostName {
    HostName::new(format!("h{number}")).unwrap()
}

pub fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

pub fn migration(number: u8) -> MigrationId {
    MigrationId::from_bytes([number; 8])
}

pub fn name(number: u8) -> ContainerName {
    ContainerName::new(format!("c{number}")).unwrap()
}

pub fn seen(number: u8) -> Command {
    Command::HostSeen {
        name: host(number),
        address: format!("192.0.2.{number}:7402"),
        underlay: [192, 0, 2, number].into(),
    }
}

pub fn create(number: u8, on: u8, network: Option<&str>) -> Command {
    Command::CreateContainer(Box::new(NewContainer {
        id: container(number),
        name: name(number),
        image: "redis".parse().unwrap(),
        image_id: Digest::from_sha256([7; 32]),
        command: vec!["redis-server".into()],
        env: vec![],
        limits: Limits::default(),
        hostname: String::new(),
        options: godwit_types::Options::default(),
        network: network.map(|name| NetworkName::new(name).unwrap()),
        host: host(on),
        created_ms: 1000 + u64::from(number),
        only_create: false,
    }))
}

pub fn report(on: u8, number: u8, generation: u64, state: Option<InstanceState>) -> Command {
    Command::ReportInstance {
        host: host(on),
        container: container(number),
        generation: Generation(generation),
        state,
        details: None,
    }
}

pub fn running(on: u8, number: u8, generation: u64) -> Command {
    let pid = 100 + i32::from(number);
    report(on, number, generation, Some(InstanceState::Running { pid }))
}

pub fn start(id: u8, number: u8, to: u8) -> Command {
    Command::StartMigration {
        id: migration(id),
        container: container(number),
        to: host(to),
        started_ms: 5000 + u64::from(id),
        options: options(),
        priority: Priority::Normal,
        drain: false,
    }
}

/// One that a drain asks for.
pub fn start_low(id: u8, number: u8, to: u8) -> Command {
    Command::StartMigration {
        id: migration(id),
        container: container(number),
        to: host(to),
        started_ms: 5000 + u64::from(id),
        options: options(),
        priority: Priority::Low,
        drain: true,
    }
}

pub fn limits(out_of_host: u32, into_host: u32, cluster: u32) -> Command {
    Command::SetLimits {
        limits: MigrationLimits {
            out_of_host,
            into_host,
            cluster,
        },
    }
}

pub fn drain(number: u8) -> Command {
    Command::BeginDrain {
        host: host(number),
        to: BTreeSet::new(),
    }
}

pub fn activate(number: u8) -> Command {
    Command::EndDrain { host: host(number) }
}

pub fn options() -> MigrationOptions {
    MigrationOptions {
        max_bandwidth: Some(1 << 20),
        ..MigrationOptions::default()
    }
}

pub fn round(number: u32) -> Round {
    Round {
        number,
        sent_bytes: 1 << 20,
        sent_pages: 250,
        zero_pages: 6,
        dirty_pages: 10,
        micros: 1000,
    }
}

pub fn advance(id: u8, to: Phase) -> Command {
    let copied = to == Phase::PreCopy;
    let record = Record {
        steps: vec![FreezeStep {
            name: to.to_string(),
            micros: 10,
            running: false,
        }],
        bytes: 7,
        rounds: copied.then(|| round(1)).into_iter().collect(),
        predicted_freeze_us: if copied { 5 } else { 0 },
        ..Record::default()
    };
    Command::Advance {
        migration: migration(id),
        to,
        record,
    }
}

/// By the destination's word.
pub fn take_back(id: u8) -> Command {
    Command::TakeBack {
        migration: migration(id),
        by: RecoveredBy::Destination,
        error: "never resumed".to_owned(),
    }
}

/// The end of a recovery that did not reach the destination.
pub fn uncleared(id: u8) -> Command {
    Command::Advance {
        migration: migration(id),
        to: Phase::Aborted,
        record: Record {
            uncleared: true,
            ..Record::default()
        },
    }
}

pub fn abort(id: u8, error: &str) -> Command {
    Command::Abort {
        migration: migration(id),
        error: error.to_owned(),
        failure: None,
    }
}

pub fn must(state: &mut State, commands: &[Command]) {
    for command in commands {
        let applied = apply(state, command);
        assert_eq!(applied, Ok(Applied::Changed), "{command:?}");
    }
}

pub fn refused(state: &mut State, command: &Command) -> Refusal {
    apply(state, command).expect_err("it must be refused")
}

/// Three hosts, and container 1 running on host 1 in the default network.
pub fn cluster() -> State {
    let mut state = State::default();
    let init = Command::Init {
        cluster: "blue".into(),
    };
    must(
        &mut state,
        &[
            init,
            seen(1),
            seen(2),
            seen(3),
            create(1, 1, Some("default")),
            running(1, 1, 1),
        ],
    );
    state
}
