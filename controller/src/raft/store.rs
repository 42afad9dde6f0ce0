//! The member's disk: log, votes, and the last snapshot, in one redb file.
//!
//! ```text
//! entries   index → eraftpb.Entry
//! meta      "format"     2, one byte
//!           "hard"       eraftpb.HardState: term, vote, commit
//!           "conf"       eraftpb.ConfState as it was at the snapshot, or before the first entry
//!           "truncated"  index and term of the entry before the first one, u64 LE each
//!           "snapshot"   eraftpb.Snapshot, its data the state as JSON
//!           "owner"      whose log this is, JSON
//!           "group"      the group's id, text, as soon as the state has it
//!           "unfit"      why this log must not be used any more, text
//! ```
//!
//! Every value but the format is sealed by a checksum ([`sealed`]); before format 2 there was
//! none. All of it is read when it is opened: what is damaged is not found out in an election.
//!
//! The applied state is written with a snapshot alone: after a restart it is the snapshot's,
//! and Raft applies the log after it again, changes of the configuration included. So a commit
//! costs one fsync, that of its entry. A commit index may be lost with the process, but never
//! that of a change of the configuration, nor one that an entry on the disk was sent with: they
//! are in one transaction. On that rests that a member never decides by a configuration that is
//! two changes old, and never waits for members that are gone.

use std::{
    cell::Cell,
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use protobuf::Message as _;
use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    owner::Owner,
    sealed::{open_seal, seal},
};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT: u8 = 2;
/// Without checksums.
const UNSEALED: u8 = 1;
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
    #[error("raft store is damaged: the checksum of {0} is wrong")]
    Checksum(String),
    #[error("raft store is damaged: it ends at entry {last}, and entry {known} was committed")]
    Torn { last: u64, known: u64 },
    #[error("raft store is damaged: {0}")]
    Unreadable(String),
    #[error("raft store is of {found}, not of {own}")]
    Owner { found: Box<Owner>, own: Box<Owner> },
    #[error("this member must not use its log any more: {0}")]
    Unfit(String),
}

impl StoreError {
    /// Whether there is no room for what was to be written.
    pub fn is_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            let io = match error.downcast_ref::<redb::Error>() {
                Some(redb::Error::Io(io)) => Some(io),
                _ => error.downcast_ref::<std::io::Error>(),
            };
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
                return true;
            }
            next = error.source();
        }
        false
    }

    /// Whether a restart would end the same way: the member has to be taken out and added again.
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Redb(error) => matches!(error, redb::Error::Corrupted(_)),
            Self::Format(_) | Self::Owner { .. } => false,
            _ => true,
        }
    }
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
    group: String,
    /// Somebody needs a snapshot newer than ours.
    wanted: Cell<bool>,
}

impl Store {
    /// Opens the file, or makes it for this owner in a group that began with these voters.
    pub fn open(path: &Path, owner: &Owner, founders: &[u64]) -> Result<Self, StoreError> {
        // redb asserts what a torn or overwritten file does not hold.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_file(path, owner, founders)));
        opened.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let what = text.unwrap_or("it can't be read at all").to_owned();
            Err(StoreError::Unreadable(what))
        })
    }

    fn open_file(path: &Path, owner: &Owner, founders: &[u64]) -> Result<Self, StoreError> {
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
            group: String::new(),
            wanted: Cell::new(false),
        };
        match store.format()? {
            Some(FORMAT) => {}
            Some(UNSEALED) => store.seal_all()?,
            Some(other) => return Err(StoreError::Format(other)),
            None => store.make(founders)?,
        }
        store.load()?;
        store.claim(owner)?;
        Ok(store)
    }

    /// None: nothing was ever written.
    fn format(&self) -> Result<Option<u8>, StoreError> {
        let read = self.db.begin_read()?;
        let meta = match read.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        let format = meta.get("format")?.map(|value| value.value().to_vec());
        match format.as_deref() {
            Some([format]) => Ok(Some(*format)),
            _ => Ok(Some(0)),
        }
    }

    fn make(&mut self, founders: &[u64]) -> Result<(), StoreError> {
        let mut conf = ConfState::default();
        conf.set_voters(founders.to_vec());
        let write = self.db.begin_write()?;
        {
            write.open_table(ENTRIES)?;
            let mut meta = write.open_table(META)?;
            meta.insert("format", [FORMAT].as_slice())?;
            meta.insert("conf", seal(&conf.write_to_bytes()?).as_slice())?;
        }
        Ok(write.commit()?)
    }

    /// From format 1.
    fn seal_all(&mut self) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        {
            let mut log = write.open_table(ENTRIES)?;
            let mut entries = Vec::new();
            for item in log.iter()? {
                let (index, value) = item?;
                entries.push((index.value(), seal(value.value())));
            }
            for (index, value) in entries {
                log.insert(index, value.as_slice())?;
            }
            let mut meta = write.open_table(META)?;
            for key in ["hard", "conf", "truncated", "snapshot"] {
                let value = meta.get(key)?.map(|value| seal(value.value()));
                if let Some(value) = value {
                    meta.insert(key, value.as_slice())?;
                }
            }
            meta.insert("format", [FORMAT].as_slice())?;
        }
        Ok(write.commit()?)
    }

    fn load(&mut self) -> Result<(), StoreError> {
        let read = self.db.begin_read()?;
        let meta = read.open_table(META)?;
        let value = |key: &str| -> Result<Option<Vec<u8>>, StoreError> {
            match meta.get(key)? {
                Some(value) => {
                    let opened = open_seal(value.value()).map(<[u8]>::to_vec);
                    let damaged = || StoreError::Checksum(format!("`{key}`"));
                    opened.map(Some).ok_or_else(damaged)
                }
                None => Ok(None),
            }
        };
        if let Some(reason) = value("unfit")? {
            let reason = String::from_utf8_lossy(&reason).into_owned();
            return Err(StoreError::Unfit(reason));
        }
        if let Some(group) = value("group")? {
            self.group = String::from_utf8_lossy(&group).into_owned();
        }
        if let Some(bytes) = value("hard")? {
            self.hard = HardState::parse_from_bytes(&bytes)?;
        }
        if let Some(bytes) = value("conf")? {
            self.conf = ConfState::parse_from_bytes(&bytes)?;
        }
        if let Some(bytes) = value("truncated")? {
            self.truncated = read_position(&bytes).ok_or(StoreError::Missing(0))?;
        }
        if let Some(bytes) = value("snapshot")? {
            let snapshot = Snapshot::parse_from_bytes(&bytes)?;
            self.snapshot_index = snapshot.get_metadata().index;
        }
        self.last = self.truncated.0;
        for item in read.open_table(ENTRIES)?.iter()? {
            let (index, value) = item?;
            let entry = read_entry(index.value(), value.value())?;
            if entry.index != self.last + 1 {
                return Err(StoreError::Missing(self.last + 1));
            }
            self.last = entry.index;
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(entry);
        }
        let known = self.hard.commit.max(self.snapshot_index);
        if known > self.last {
            let last = self.last;
            return Err(StoreError::Torn { last, known });
        }
        // What a snapshot was taken of was committed, whatever of the index was lost.
        self.hard.commit = self.hard.commit.max(self.snapshot_index);
        Ok(())
    }

    /// A log that was nobody's becomes this owner's; that of another is refused.
    fn claim(&mut self, own: &Owner) -> Result<(), StoreError> {
        let found = {
            let read = self.db.begin_read()?;
            let meta = read.open_table(META)?;
            let value = meta.get("owner")?;
            value.and_then(|value| Owner::read(open_seal(value.value())?))
        };
        match found {
            Some(found) if found == *own => Ok(()),
            Some(found) => Err(StoreError::Owner {
                found: Box::new(found),
                own: Box::new(own.clone()),
            }),
            None => self.put("owner", &own.write()),
        }
    }

    /// Of which group this log is. Empty: it was in none yet.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Known before the state is: after a start that comes only with what is applied again.
    pub fn set_group(&mut self, group: &str) -> Result<(), StoreError> {
        if self.group != group {
            self.put("group", group.as_bytes())?;
            group.clone_into(&mut self.group);
        }
        Ok(())
    }

    /// No later start uses this log: what it says is older than what this member has promised.
    pub fn mark_unfit(&mut self, reason: &str) -> Result<(), StoreError> {
        self.put("unfit", reason.as_bytes())
    }

    fn put(&mut self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let write = self.db.begin_write()?;
        write
            .open_table(META)?
            .insert(key, seal(value).as_slice())?;
        Ok(write.commit()?)
    }

    /// The state of the last snapshot, and the index it stands for.
    pub fn snapshot_state(&self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let snapshot = self.read_snapshot()?;
        Ok(snapshot.map(|mut found| (found.get_metadata().index, found.take_data().into())))
    }

    /// The last entry on the disk.
    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    /// As it is applied; on the disk it is that of the snapshot.
    pub fn conf(&self) -> &ConfState {
        &self.conf
    }

    pub fn set_conf(&mut self, conf: ConfState) {
        self.conf = conf;
    }

    /// Whether raft asked for a snapshot that is not there: the next one will be taken then.
    pub fn take_wanted(&self) -> bool {
        self.wanted.replace(false)
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
                log.insert(entry.index, seal(&entry.write_to_bytes()?).as_slice())?;
            }
            if let Some(hard) = hard {
                let mut meta = write.open_table(META)?;
                meta.insert("hard", seal(&hard.write_to_bytes()?).as_slice())?;
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

    /// A commit index that must not be lost, of an entry that is on the disk. Without it a
    /// member could start with a configuration of members that are gone by now, and wait for
    /// their votes for ever.
    pub fn keep_commit(&mut self, index: u64) -> Result<(), StoreError> {
        let mut hard = self.hard.clone();
        hard.commit = hard.commit.max(index);
        self.put("hard", &hard.write_to_bytes()?)?;
        self.hard = hard;
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
            let conf = meta.get_conf_state().write_to_bytes()?;
            for (key, value) in [
                ("snapshot", snapshot.write_to_bytes()?),
                ("truncated", written(position).to_vec()),
                ("hard", hard.write_to_bytes()?),
                ("conf", conf),
            ] {
                table.insert(key, seal(&value).as_slice())?;
            }
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
            for (key, value) in [
                ("snapshot", snapshot.write_to_bytes()?),
                ("truncated", written(truncated).to_vec()),
                ("conf", self.conf.write_to_bytes()?),
            ] {
                table.insert(key, seal(&value).as_slice())?;
            }
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
            Some(value) => {
                let bytes = open_seal(value.value());
                let bytes = bytes.ok_or_else(|| StoreError::Checksum("`snapshot`".into()))?;
                Ok(Some(Snapshot::parse_from_bytes(bytes)?))
            }
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
            let (index, value) = item?;
            entries.push(read_entry(index.value(), value.value())?);
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

/// Who takes part in a configuration in any way.
pub fn ids(conf: &ConfState) -> BTreeSet<u64> {
    let parts = [
        conf.get_voters(),
        conf.get_learners(),
        conf.get_voters_outgoing(),
        conf.get_learners_next(),
    ];
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}

fn read_entry(index: u64, sealed: &[u8]) -> Result<Entry, StoreError> {
    let bytes = open_seal(sealed).ok_or_else(|| StoreError::Checksum(format!("entry {index}")))?;
    Ok(Entry::parse_from_bytes(bytes)?)
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

    /// One that knows its receiver: a member takes none of a group that it is not in.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let found = self.read_snapshot()?.filter(|found| {
            let meta = found.get_metadata();
            meta.index >= request_index && ids(meta.get_conf_state()).contains(&to)
        });
        found.ok_or_else(|| {
            self.wanted.set(true);
            raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        })
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
