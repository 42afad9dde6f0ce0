//! The member's disk: log, votes, and the last snapshot, in one redb file.
//!
//! ```text
//! entries   index → eraftpb.Entry
//! meta      "format"     1, one byte
//!           "hard"       eraftpb.HardState: term, vote, commit
//!           "conf"       eraftpb.ConfState
//!           "truncated"  index and term of the entry before the first one, u64 LE each
//!           "snapshot"   eraftpb.Snapshot, its data the state as JSON
//! ```
//!
//! The applied state is written with a snapshot alone: after a restart it is the snapshot's,
//! and Raft applies the log after it again. So a commit costs one fsync, that of its entry.

use std::{collections::VecDeque, path::Path};

use protobuf::Message as _;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT: u8 = 1;
/// Entries kept in memory: what followers that keep up are sent.
const TAIL: usize = 512;
/// redb would take up to 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

/// Why the disk can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("raft store can't be read or written")]
    Redb(#[from] redb::Error),
    #[error("raft store format {0} is newer than {FORMAT}; upgrade this program")]
    Format(u8),
    #[error("raft store is damaged")]
    Damaged(#[from] protobuf::ProtobufError),
    #[error("raft store lacks entry {0}")]
    Missing(u64),
}

macro_rules! from_redb {
    ($($kind:ident),*) => { $(
        impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                Self::Redb(error.into())
            }
        }
    )* };
}
from_redb!(
    DatabaseError,
    TransactionError,
    TableError,
    StorageError,
    CommitError,
    SetDurabilityError
);

impl From<StoreError> for raft::Error {
    fn from(error: StoreError) -> Self {
        Self::Store(StorageError::Other(Box::new(error)))
    }
}

/// Index and term of an entry.
type Position = (u64, u64);

pub struct Store {
    db: Database,
    hard: HardState,
    conf: ConfState,
    /// The entry before the first one that is kept.
    truncated: Position,
    last: u64,
    tail: VecDeque<Entry>,
    snapshot_index: u64,
}

impl Store {
    /// Opens the file, or makes it with these voters.
    pub fn open(path: &Path, voters: &[u64]) -> Result<Self, StoreError> {
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)?;
        let mut store = Self {
            db,
            hard: HardState::default(),
            conf: ConfState::default(),
            truncated: (0, 0),
            last: 0,
            tail: VecDeque::new(),
            snapshot_index: 0,
        };
        if !store.load()? {
            store.conf.set_voters(voters.to_vec());
            let conf = store.conf.write_to_bytes()?;
            let write = store.db.begin_write()?;
            {
                write.open_table(ENTRIES)?;
                let mut meta = write.open_table(META)?;
                meta.insert("format", [FORMAT].as_slice())?;
                meta.insert("conf", conf.as_slice())?;
            }
            write.commit()?;
        }
        Ok(store)
    }

    /// Answers false when nothing was ever written.
    fn load(&mut self) -> Result<bool, StoreError> {
        let read = self.db.begin_read()?;
        let meta = match read.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(false),
            other => other?,
        };
        match meta.get("format")?.map(|value| value.value().to_vec()) {
            Some(format) if format == [FORMAT] => {}
            other => {
                let found = other.and_then(|bytes| bytes.first().copied());
                return Err(StoreError::Format(found.unwrap_or(0)));
            }
        }
        if let Some(value) = meta.get("hard")? {
            self.hard = HardState::parse_from_bytes(value.value())?;
        }
        if let Some(value) = meta.get("conf")? {
            self.conf = ConfState::parse_from_bytes(value.value())?;
        }
        if let Some(value) = meta.get("truncated")? {
            self.truncated = read_position(value.value()).ok_or(StoreError::Missing(0))?;
        }
        if let Some(value) = meta.get("snapshot")? {
            let snapshot = Snapshot::parse_from_bytes(value.value())?;
            self.snapshot_index = snapshot.get_metadata().index;
        }
        let entries = read.open_table(ENTRIES)?;
        self.last = self.truncated.0;
        for item in entries.iter()?.rev().take(TAIL) {
            let entry = Entry::parse_from_bytes(item?.1.value())?;
            self.last = self.last.max(entry.index);
            self.tail.push_front(entry);
        }
        Ok(true)
    }

    /// The state of the last snapshot, and the index it stands for.
    pub fn snapshot_state(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let snapshot = self.read_snapshot()?;
        Ok(snapshot.map(|mut found| (found.get_metadata().index, found.take_data().into())))
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// Entries and votes of one Ready, in one transaction. `sync`: on the disk when this
    /// returns; without it they may be lost with the machine, as a mere commit index may.
    pub fn save(
        &mut self,
        entries: &[Entry],
        hard: Option<&HardState>,
        sync: bool,
    ) -> Result<(), StoreError> {
        if entries.is_empty() && hard.is_none() {
            return Ok(());
        }
        let mut write = self.db.begin_write()?;
        write.set_durability(if sync {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        {
            let mut log = write.open_table(ENTRIES)?;
            if let Some(first) = entries.first() {
                // A new leader may have overwritten the end of our log.
                for index in first.index..=self.last {
                    log.remove(index)?;
                }
            }
            for entry in entries {
                log.insert(entry.index, entry.write_to_bytes()?.as_slice())?;
            }
            if let Some(hard) = hard {
                let mut meta = write.open_table(META)?;
                meta.insert("hard", hard.write_to_bytes()?.as_slice())?;
            }
        }
        write.commit()?;
        if let Some(hard) = hard {
            self.hard = hard.clone();
        }
        if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            while self.tail.back().is_some_and(|e| e.index >= first.index) {
                self.tail.pop_back();
            }
            self.tail.extend(entries.iter().cloned());
            let surplus = self.tail.len().saturating_sub(TAIL);
            self.tail.drain(..surplus);
            self.last = last.index;
        }
        Ok(())
    }

    /// The leader's snapshot instead of everything that was here.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        let meta = snapshot.get_metadata();
        let position = (meta.index, meta.term);
        let mut hard = self.hard.clone();
        hard.term = hard.term.max(meta.term);
        hard.commit = meta.index;
        let write = self.db.begin_write()?;
        {
            write.open_table(ENTRIES)?.retain(|_, _| false)?;
            let mut table = write.open_table(META)?;
            table.insert("snapshot", snapshot.write_to_bytes()?.as_slice())?;
            table.insert("truncated", written(position).as_slice())?;
            table.insert("hard", hard.write_to_bytes()?.as_slice())?;
            let conf = meta.get_conf_state().write_to_bytes()?;
            table.insert("conf", conf.as_slice())?;
        }
        write.commit()?;
        self.hard = hard;
        self.conf = meta.get_conf_state().clone();
        self.truncated = position;
        self.last = meta.index;
        self.tail.clear();
        self.snapshot_index = meta.index;
        Ok(())
    }

    /// A snapshot of our own at `applied`; the entries before the last `keep` go.
    pub fn compact(&mut self, applied: u64, state: Vec<u8>, keep: u64) -> Result<(), StoreError> {
        let mut snapshot = Snapshot::default();
        snapshot.set_data(state.into());
        let meta = snapshot.mut_metadata();
        meta.index = applied;
        meta.term = self.term_of(applied)?;
        meta.set_conf_state(self.conf.clone());
        let cut = applied.saturating_sub(keep).max(self.truncated.0);
        let truncated = (cut, self.term_of(cut)?);
        let write = self.db.begin_write()?;
        {
            let mut log = write.open_table(ENTRIES)?;
            log.retain_in(..=cut, |_, _| false)?;
            let mut table = write.open_table(META)?;
            table.insert("snapshot", snapshot.write_to_bytes()?.as_slice())?;
            table.insert("truncated", written(truncated).as_slice())?;
        }
        write.commit()?;
        self.truncated = truncated;
        self.snapshot_index = applied;
        while self.tail.front().is_some_and(|e| e.index <= cut) {
            self.tail.pop_front();
        }
        Ok(())
    }

    fn read_snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let read = self.db.begin_read()?;
        let meta = read.open_table(META)?;
        match meta.get("snapshot")? {
            Some(value) => Ok(Some(Snapshot::parse_from_bytes(value.value())?)),
            None => Ok(None),
        }
    }

    fn read_entries(&self, low: u64, high: u64) -> Result<Vec<Entry>, StoreError> {
        if let Some(front) = self.tail.front()
            && low >= front.index
        {
            let start = (low - front.index) as usize;
            let count = (high - low) as usize;
            return Ok(self.tail.iter().skip(start).take(count).cloned().collect());
        }
        let read = self.db.begin_read()?;
        let log = read.open_table(ENTRIES)?;
        let mut entries = Vec::with_capacity((high - low) as usize);
        for item in log.range(low..high)? {
            entries.push(Entry::parse_from_bytes(item?.1.value())?);
        }
        if entries.len() as u64 == high - low {
            Ok(entries)
        } else {
            Err(StoreError::Missing(low))
        }
    }

    fn term_of(&self, index: u64) -> Result<u64, StoreError> {
        if index == self.truncated.0 {
            return Ok(self.truncated.1);
        }
        let entries = self.read_entries(index, index + 1)?;
        let entry = entries.first().ok_or(StoreError::Missing(index))?;
        Ok(entry.term)
    }
}

fn written((index, term): Position) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes[8..].copy_from_slice(&term.to_le_bytes());
    bytes
}

fn read_position(bytes: &[u8]) -> Option<Position> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    let (index, term) = bytes.split_at(8);
    Some((
        u64::from_le_bytes(index.try_into().ok()?),
        u64::from_le_bytes(term.try_into().ok()?),
    ))
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut entries = self.read_entries(low, high)?;
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if index > self.last {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        Ok(self.term_of(index)?)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        match self.read_snapshot()? {
            Some(found) if found.get_metadata().index >= request_index => Ok(found),
            _ => Err(raft::Error::Store(
                StorageError::SnapshotTemporarilyUnavailable,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut store = Store::open(&path, &[1, 2, 3]).unwrap();
        let mut hard = HardState::default();
        (hard.term, hard.vote, hard.commit) = (2, 3, 4);
        let first: Vec<_> = (1..=6).map(|index| entry(index, 1)).collect();
        store.save(&first, Some(&hard), true).unwrap();
        // A new leader overwrites the end.
        store.save(&[entry(5, 2)], None, true).unwrap();
        drop(store);
        let store = Store::open(&path, &[9]).unwrap();
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
        let mut store = Store::open(&path, &[1]).unwrap();
        let count = TAIL as u64 * 2;
        let all: Vec<_> = (1..=count).map(|index| entry(index, 7)).collect();
        store.save(&all, None, true).unwrap();
        assert_eq!(terms(&store, 1, 3), [7, 7]);
        store.compact(count - 10, b"state".to_vec(), 5).unwrap();
        drop(store);
        let store = Store::open(&path, &[1]).unwrap();
        assert_eq!(store.first_index().unwrap(), count - 14);
        assert_eq!(store.term(count - 15).unwrap(), 7);
        let compacted = store.entries(1, 2, None, GetEntriesContext::empty(false));
        assert!(compacted.is_err());
        let (index, data) = store.snapshot_state().unwrap().unwrap();
        assert_eq!((index, data.as_slice()), (count - 10, b"state".as_slice()));
        assert!(store.snapshot(count, 2).is_err());

        let other = dir.path().join("other.redb");
        let mut other = Store::open(&other, &[1]).unwrap();
        other.save(&[entry(1, 1)], None, true).unwrap();
        other.install(&store.snapshot(0, 2).unwrap()).unwrap();
        assert_eq!(other.last_index().unwrap(), count - 10);
        assert_eq!(other.first_index().unwrap(), count - 9);
        assert_eq!(other.term(count - 10).unwrap(), 7);
    }
}
