//! The disk of a member: what is there after a restart, and what is refused.

use super::*;

fn owner(id: u64) -> Owner {
    Owner {
        cluster: "blue".into(),
        member: format!("m{id}"),
        id,
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: vec![index as u8; 3].into(),
        ..Entry::default()
    }
}

fn terms(store: &Store, low: u64, high: u64) -> Vec<u64> {
    let context = GetEntriesContext::empty(false);
    let entries = store.entries(low, high, None, context).unwrap();
    entries.iter().map(|entry| entry.term).collect()
}

#[test]
fn what_was_saved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let mut store = Store::open(&path, &owner(1), &[1, 2, 3]).unwrap();
    let mut hard = HardState::default();
    (hard.term, hard.vote, hard.commit) = (2, 3, 4);
    let first: Vec<_> = (1..=6).map(|index| entry(index, 1)).collect();
    store.save(&first, Some(&hard), true).unwrap();
    // A new leader overwrites the end.
    store.save(&[entry(5, 2)], None, true).unwrap();
    drop(store);
    let store = Store::open(&path, &owner(1), &[9]).unwrap();
    assert_eq!(store.conf().get_voters(), [1, 2, 3]);
    let state = store.initial_state().unwrap();
    assert_eq!(state.hard_state, hard);
    assert_eq!(store.last_index().unwrap(), 5);
    assert_eq!(terms(&store, 1, 6), [1, 1, 1, 1, 2]);
}

#[test]
fn a_compacted_log_keeps_its_end_and_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let mut store = Store::open(&path, &owner(1), &[1]).unwrap();
    let count = TAIL as u64 * 2;
    let all: Vec<_> = (1..=count).map(|index| entry(index, 7)).collect();
    store.save(&all, None, true).unwrap();
    assert_eq!(terms(&store, 1, 3), [7, 7]);
    store.compact(count - 10, b"state".to_vec(), 5).unwrap();
    drop(store);
    let mut store = Store::open(&path, &owner(1), &[1]).unwrap();
    assert_eq!(store.first_index().unwrap(), count - 14);
    assert_eq!(store.term(count - 15).unwrap(), 7);
    let compacted = store.entries(1, 2, None, GetEntriesContext::empty(false));
    assert!(compacted.is_err());
    let (index, data) = store.snapshot_state().unwrap().unwrap();
    assert_eq!((index, data.as_slice()), (count - 10, b"state".as_slice()));
    assert!(store.snapshot(count, 1).is_err());
    // Member 2 is not in it: the next one is to be taken.
    assert!(store.snapshot(0, 2).is_err());
    assert!(store.take_wanted() && !store.take_wanted());
    store.set_conf(ConfState::from((vec![1], vec![2])));
    store.compact(count - 9, b"state".to_vec(), 5).unwrap();

    let other = dir.path().join("other.redb");
    let mut other = Store::open(&other, &owner(2), &[1, 2]).unwrap();
    other.save(&[entry(1, 1)], None, true).unwrap();
    other.install(&store.snapshot(0, 2).unwrap()).unwrap();
    assert_eq!(other.last_index().unwrap(), count - 9);
    assert_eq!(other.first_index().unwrap(), count - 8);
    assert_eq!(other.term(count - 9).unwrap(), 7);
    assert_eq!(other.conf().get_learners(), [2]);
}

/// A log of 40 entries, all of them committed, with a snapshot at 10.
fn filled(path: &Path) -> Vec<u64> {
    let mut store = Store::open(path, &owner(1), &[1, 2, 3]).unwrap();
    let all: Vec<_> = (1..=40).map(|index| entry(index, 1 + index / 9)).collect();
    let mut hard = HardState::default();
    (hard.term, hard.vote, hard.commit) = (5, 3, 40);
    store.save(&all, Some(&hard), true).unwrap();
    store.compact(10, b"state".to_vec(), 2).unwrap();
    terms(&store, 9, 41)
}

#[test]
fn a_file_that_was_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    filled(&path);
    let whole = std::fs::read(&path).unwrap();
    for part in 1..8 {
        std::fs::write(&path, &whole[..whole.len() * part / 8]).unwrap();
        let opened = Store::open(&path, &owner(1), &[1, 2, 3]);
        assert!(opened.is_err(), "{part}/8 of the file was taken for a log");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_touches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let terms_before = filled(&path);
    let whole = std::fs::read(&path).unwrap();
    // Where entries are: the bytes that `entry` writes.
    let mut at: Vec<usize> = (0..whole.len() - 3)
        .filter(|at| (11..=40).any(|index: u8| whole[*at..*at + 3] == [index; 3]))
        .collect();
    at.dedup();
    let mut refused = 0;
    for at in at
        .into_iter()
        .step_by(3)
        .chain((64..whole.len()).step_by(40_009))
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        match Store::open(&path, &owner(1), &[1, 2, 3]) {
            Err(error) => {
                assert!(error.is_for_good(), "{error}");
                refused += 1;
            }
            Ok(store) => {
                assert_eq!(terms(&store, 9, 41), terms_before, "at {at}");
                let data = store.entries(9, 41, None, GetEntriesContext::empty(false));
                for entry in data.unwrap() {
                    assert_eq!(entry.data.as_ref(), [entry.index as u8; 3], "at {at}");
                }
            }
        }
    }
    assert!(refused > 0, "no flip was in anything that counts");
}

#[test]
fn a_committed_entry_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let store = filled_store(&path);
    let write = store.db.begin_write().unwrap();
    write.open_table(ENTRIES).unwrap().remove(40).unwrap();
    write.commit().unwrap();
    drop(store);
    let torn = Store::open(&path, &owner(1), &[1]).err().unwrap();
    assert!(
        matches!(
            torn,
            StoreError::Torn {
                last: 39,
                known: 40
            }
        ),
        "{torn}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let store = filled_store(&path);
    let write = store.db.begin_write().unwrap();
    write.open_table(ENTRIES).unwrap().remove(20).unwrap();
    write.commit().unwrap();
    drop(store);
    let holed = Store::open(&path, &owner(1), &[1]).err().unwrap();
    assert!(matches!(holed, StoreError::Missing(20)), "{holed}");
}

fn filled_store(path: &Path) -> Store {
    filled(path);
    Store::open(path, &owner(1), &[1, 2, 3]).unwrap()
}

#[test]
fn another_members_log_is_refused_and_so_is_one_that_was_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    filled(&path);
    for other in [
        owner(2),
        Owner {
            cluster: "green".into(),
            ..owner(1)
        },
    ] {
        let error = Store::open(&path, &other, &[1]).err().unwrap();
        assert!(!error.is_for_good(), "the log itself is good");
        let text = error.to_string();
        assert!(text.contains("`m1` (id 1) of cluster `blue`"), "{text}");
        assert!(text.contains(&other.cluster), "{text}");
    }
    let mut store = Store::open(&path, &owner(1), &[1]).unwrap();
    store.mark_unfit("it is an old copy").unwrap();
    drop(store);
    let error = Store::open(&path, &owner(1), &[1]).err().unwrap();
    assert!(error.to_string().contains("it is an old copy"), "{error}");
}

#[test]
fn a_log_without_checksums_gets_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("raft.redb");
    let db = Database::create(&path).unwrap();
    let write = db.begin_write().unwrap();
    {
        let mut log = write.open_table(ENTRIES).unwrap();
        for index in 1..=5 {
            let bytes = entry(index, 1).write_to_bytes().unwrap();
            log.insert(index, bytes.as_slice()).unwrap();
        }
        let mut meta = write.open_table(META).unwrap();
        meta.insert("format", [UNSEALED].as_slice()).unwrap();
        let conf = ConfState::from((vec![1, 2, 3], vec![]));
        let bytes = conf.write_to_bytes().unwrap();
        meta.insert("conf", bytes.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(db);
    for _ in 0..2 {
        let store = Store::open(&path, &owner(1), &[9]).unwrap();
        assert_eq!(store.conf().get_voters(), [1, 2, 3]);
        assert_eq!(terms(&store, 1, 6), [1; 5]);
    }
}
