//! The ledger on disk: its stored form, what it refuses, and what survives.

use std::{collections::VecDeque, fs};

use godwit_agent::container::take_up;
use godwit_agent::ledger::{
    Answer, Finished, KEPT, Ledger, LedgerError, REMEMBERED, Record, Role, Stored, VERSION,
};
use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, ContainerSpec, FailureKind, FreezeStep, Generation,
    HostName, InstanceState, MigrationId, OperationId, Outcome, Verb,
};

fn container(byte: u8) -> ContainerId {
    ContainerId::from_bytes([byte; 32])
}

fn spec() -> Box<ContainerSpec> {
    Box::new(ContainerSpec {
        name: "web".parse().unwrap(),
        image: "redis:7".parse().unwrap(),
        image_id: format!("sha256:{}", "0a".repeat(32)).parse().unwrap(),
        command: vec!["redis-server".into()],
        env: vec!["A=b".into()],
        limits: Default::default(),
        network: None,
        hostname: String::new(),
        options: godwit_types::Options::default(),
    })
}

fn record() -> Record {
    let migration = MigrationId::from_bytes([7; 8]);
    Record {
        version: VERSION,
        container: container(1),
        highest: Generation(3),
        role: Role::Incoming {
            generation: Generation(3),
            migration: migration.clone(),
            from: HostName::new("h1").unwrap(),
            spec: spec(),
        },
        left: Some(Generation(1)),
        never: None,
        life: Default::default(),
        begun: Some(OperationId::from_bytes([4; 16])),
        finished: VecDeque::from([
            Finished {
                operation: OperationId::from_bytes([2; 16]),
                verb: "freeze".into(),
                migration: Some(migration),
                result: Stored::Outcome(Outcome::Frozen {
                    steps: vec![FreezeStep {
                        name: "dump".into(),
                        micros: 44_000,
                        running: false,
                    }],
                }),
            },
            Finished {
                operation: OperationId::from_bytes([3; 16]),
                verb: "run".into(),
                migration: None,
                result: Stored::Failure(CommandFailure::new(FailureKind::Unfit, "no room")),
            },
        ]),
    }
}

fn ledger() -> (tempfile::TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path().join("ledger")).unwrap();
    (dir, ledger)
}

#[test]
fn a_record_reads_back_after_a_restart() {
    let (dir, ledger) = ledger();
    assert_eq!(ledger.load(&container(1)).unwrap(), None);
    ledger.store(&record()).unwrap();
    let again = Ledger::open(dir.path().join("ledger")).unwrap();
    assert_eq!(again.load(&container(1)).unwrap(), Some(record()));
}

#[test]
fn the_stored_form_is_the_golden_one() {
    let golden = include_str!("golden/ledger-v1.json");
    let read: Record = serde_json::from_str(golden).unwrap();
    assert_eq!(read, record());
    let written = serde_json::to_string_pretty(&record()).unwrap();
    assert_eq!(written.trim(), golden.trim());
}

#[test]
fn a_file_that_cant_be_trusted_is_refused_and_never_forgotten() {
    let (dir, ledger) = ledger();
    let path = dir
        .path()
        .join("ledger")
        .join(format!("{}.json", container(1)));
    for text in ["", "{", "null", "{\"version\":1}", "\0\0\0\0"] {
        fs::write(&path, text).unwrap();
        let refused = ledger.load(&container(1));
        assert!(
            matches!(refused, Err(LedgerError::Damaged { .. })),
            "{text:?}"
        );
    }
    // Torn in the middle.
    let whole = serde_json::to_vec(&record()).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(ledger.load(&container(1)).is_err());

    fs::write(&path, "{\"version\":2}").unwrap();
    let refused = ledger.load(&container(1));
    assert!(matches!(
        refused,
        Err(LedgerError::Version { version: 2, .. })
    ));

    let foreign = serde_json::to_vec(&Record::unknown(container(2), 0)).unwrap();
    fs::write(&path, foreign).unwrap();
    let refused = ledger.load(&container(1));
    assert!(matches!(refused, Err(LedgerError::Foreign { .. })));

    ledger.prune(u64::MAX).unwrap();
    assert!(path.exists());
}

#[test]
fn an_interrupted_write_leaves_the_old_record() {
    let (dir, ledger) = ledger();
    ledger.store(&record()).unwrap();
    let torn = dir
        .path()
        .join("ledger")
        .join(format!("{}.tmp", container(1)));
    fs::write(&torn, "{\"version\":").unwrap();
    let ledger = Ledger::open(dir.path().join("ledger")).unwrap();
    assert_eq!(ledger.load(&container(1)).unwrap(), Some(record()));
    assert!(!torn.exists());
    // And the next write is not confused by what was there.
    let mut next = record();
    next.highest = Generation(4);
    ledger.store(&next).unwrap();
    assert_eq!(
        ledger.load(&container(1)).unwrap().unwrap().highest,
        Generation(4)
    );
}

#[test]
fn only_what_left_long_ago_is_forgotten() {
    let (_dir, ledger) = ledger();
    let now = 10 * REMEMBERED.as_millis() as u64;
    let long_ago = now - REMEMBERED.as_millis() as u64 - 1;
    ledger.store(&record()).unwrap();
    ledger
        .store(&Record::unknown(container(2), long_ago))
        .unwrap();
    ledger
        .store(&Record::unknown(container(3), long_ago + 2))
        .unwrap();
    assert_eq!(ledger.prune(now).unwrap(), 1);
    assert!(ledger.load(&container(1)).unwrap().is_some());
    assert!(ledger.load(&container(2)).unwrap().is_none());
    assert!(ledger.load(&container(3)).unwrap().is_some());
}

#[test]
fn the_last_answers_are_kept_and_no_more() {
    let mut record = Record::unknown(container(1), 0);
    let command = |index: u8| AgentCommand {
        operation: OperationId::from_bytes([index; 16]),
        verb: Verb::Remove {
            container: container(1),
            generation: Generation(1),
            force: true,
        },
    };
    let answer: Answer = Ok(Outcome::Done);
    for index in 0..=KEPT as u8 {
        record.keep(&command(index), &answer);
    }
    assert_eq!(record.finished.len(), KEPT);
    assert_eq!(record.answer(&OperationId::from_bytes([0; 16])), None);
    assert_eq!(
        record.answer(&OperationId::from_bytes([1; 16])),
        Some(answer)
    );
}

#[test]
fn what_an_instance_says_at_the_start_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path().join("ledger")).unwrap();
    let id = container(1);
    ledger.store(&record()).unwrap();
    // Held: it is as it was.
    let staged = InstanceState::Staged {
        migration: MigrationId::from_bytes([7; 8]),
    };
    let same = take_up(&ledger, &id, Some(&staged)).unwrap().unwrap();
    assert_eq!(same.record, record());
    // It runs, so it was resumed, and the agent ended before it could write so.
    let running = InstanceState::Running { pid: 7 };
    let found = take_up(&ledger, &id, Some(&running)).unwrap().unwrap();
    assert!(!found.unstored);
    // The next start may find no instance at all.
    let stored = take_up(&ledger, &id, None).unwrap().unwrap();
    assert_eq!(stored, found);
    assert!(matches!(
        stored.record.role,
        Role::Owner {
            generation: Generation(3),
            ..
        }
    ));
    // A disk that takes nothing leaves it to be written later.
    ledger.store(&record()).unwrap();
    fs::create_dir(dir.path().join("ledger").join(format!("{id}.tmp"))).unwrap();
    let later = take_up(&ledger, &id, Some(&running)).unwrap().unwrap();
    assert!(later.unstored);
    assert_eq!(later.record, found.record);
    let nobody = take_up(&ledger, &container(2), Some(&running)).unwrap();
    assert_eq!(nobody, None);
}
