//! A member's disk: the layout of `controller`'s store in memory, in two copies. What was written
//! and not synced is in the one that a crash takes away.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
    util::limit_size,
};

#[derive(Debug, Clone, Default)]
struct Image {
    hard: HardState,
    conf: ConfState,
    /// Index and term of the entry before the first one.
    truncated: (u64, u64),
    entries: Vec<Entry>,
    snapshot: Option<Snapshot>,
}

impl Image {
    fn last(&self) -> u64 {
        self.truncated.0 + self.entries.len() as u64
    }

    fn save(&mut self, entries: &[Entry], hard: Option<&HardState>) {
        if let Some(first) = entries.first() {
            // A new leader may have overwritten the end of our log.
            let keep = first.index.saturating_sub(self.truncated.0 + 1);
            self.entries.truncate(keep as usize);
            self.entries.extend(entries.iter().cloned());
        }
        if let Some(hard) = hard {
            self.hard = hard.clone();
        }
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        let at = index.checked_sub(self.truncated.0 + 1)?;
        self.entries.get(at as usize).map(|entry| entry.term)
    }
}

#[derive(Debug, Default)]
struct Copies {
    now: Image,
    durable: Image,
    /// Written since the last sync, in order.
    unsynced: Vec<(Vec<Entry>, Option<HardState>)>,
    /// As it is applied; in the images it is that of the snapshot.
    conf: ConfState,
    /// Somebody needs a snapshot that he is in.
    wanted: bool,
}

/// A handle: raft's node has one, the member another, and the disk outlives both.
#[derive(Debug, Clone)]
pub struct Disk(Rc<RefCell<Copies>>);

impl Disk {
    pub fn new(voters: &[u64]) -> Self {
        let mut copies = Copies::default();
        copies.now.conf.set_voters(voters.to_vec());
        copies.durable = copies.now.clone();
        Self(Rc::new(RefCell::new(copies)))
    }

    /// Entries and votes of one Ready; they may be lost until [`Self::sync`].
    pub fn save(&self, entries: &[Entry], hard: Option<&HardState>) {
        let mut copies = self.0.borrow_mut();
        copies.now.save(entries, hard);
        copies.unsynced.push((entries.to_vec(), hard.cloned()));
    }

    pub fn sync(&self) {
        let copies = &mut *self.0.borrow_mut();
        for (entries, hard) in copies.unsynced.drain(..) {
            copies.durable.save(&entries, hard.as_ref());
        }
    }

    /// The machine is gone, and what it had not synced.
    pub fn crash(&self) {
        let mut copies = self.0.borrow_mut();
        copies.unsynced.clear();
        copies.now = copies.durable.clone();
    }

    /// The leader's snapshot instead of everything that was here; synced.
    pub fn install(&self, snapshot: &Snapshot) {
        self.sync();
        let mut copies = self.0.borrow_mut();
        let meta = snapshot.get_metadata();
        let now = &mut copies.now;
        now.hard.term = now.hard.term.max(meta.term);
        now.hard.commit = meta.index;
        now.conf = meta.get_conf_state().clone();
        now.truncated = (meta.index, meta.term);
        now.entries.clear();
        now.snapshot = Some(snapshot.clone());
        copies.conf = copies.now.conf.clone();
        copies.durable = copies.now.clone();
    }

    /// A snapshot of our own at `applied`; the entries before the last `keep` go. Synced.
    pub fn compact(&self, applied: u64, state: Vec<u8>, keep: u64) {
        self.sync();
        let copies = &mut *self.0.borrow_mut();
        let now = &mut copies.now;
        let (Some(term), cut) = (
            now.term(applied),
            applied.saturating_sub(keep).max(now.truncated.0),
        ) else {
            return;
        };
        let Some(cut_term) = now.term(cut) else {
            return;
        };
        let mut snapshot = Snapshot::default();
        snapshot.set_data(state.into());
        let conf = copies.conf.clone();
        now.conf = conf.clone();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (applied, term);
        meta.set_conf_state(conf);
        now.entries.drain(..(cut - now.truncated.0) as usize);
        now.truncated = (cut, cut_term);
        now.snapshot = Some(snapshot);
        copies.durable = copies.now.clone();
    }

    /// A commit index that must not be lost; synced.
    pub fn keep_commit(&self, index: u64) {
        self.sync();
        let copies = &mut *self.0.borrow_mut();
        for image in [&mut copies.now, &mut copies.durable] {
            image.hard.commit = image.hard.commit.max(index);
        }
    }

    pub fn set_conf(&self, conf: ConfState) {
        self.0.borrow_mut().conf = conf;
    }

    /// A process begins with what is on the disk.
    pub fn reload_conf(&self) {
        let copies = &mut *self.0.borrow_mut();
        copies.conf = copies.now.conf.clone();
    }

    /// Who takes part in any way, as it is applied.
    pub fn ids(&self) -> BTreeSet<u64> {
        ids(&self.0.borrow().conf)
    }

    pub fn take_wanted(&self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().wanted)
    }

    pub fn snapshot_index(&self) -> u64 {
        let copies = self.0.borrow();
        let snapshot = copies.now.snapshot.as_ref();
        snapshot.map_or(0, |snapshot| snapshot.get_metadata().index)
    }

    /// The state of the last snapshot, and the index it stands for.
    pub fn snapshot_state(&self) -> Option<(u64, Vec<u8>)> {
        let copies = self.0.borrow();
        let snapshot = copies.now.snapshot.as_ref()?;
        Some((snapshot.get_metadata().index, snapshot.get_data().to_vec()))
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let now = &self.0.borrow().now;
        let snapshot = now.snapshot.as_ref();
        let mut hard = now.hard.clone();
        // What a snapshot was taken of was committed, whatever of the index was lost.
        let known = snapshot.map_or(0, |snapshot| snapshot.get_metadata().index);
        hard.commit = hard.commit.max(known);
        Ok(RaftState::new(hard, now.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let now = &self.0.borrow().now;
        if low <= now.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > now.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let first = now.truncated.0 + 1;
        let mut entries = now.entries[(low - first) as usize..(high - first) as usize].to_vec();
        limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let now = &self.0.borrow().now;
        if index < now.truncated.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let term = now.term(index);
        term.ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().now.truncated.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().now.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let copies = &mut *self.0.borrow_mut();
        let found = copies.now.snapshot.as_ref().filter(|found| {
            let meta = found.get_metadata();
            meta.index >= request_index && ids(meta.get_conf_state()).contains(&to)
        });
        found.cloned().ok_or_else(|| {
            copies.wanted = true;
            raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable)
        })
    }
}

fn ids(conf: &ConfState) -> BTreeSet<u64> {
    let parts = [
        conf.get_voters(),
        conf.get_learners(),
        conf.get_voters_outgoing(),
        conf.get_learners_next(),
    ];
    parts.iter().flat_map(|part| part.iter().copied()).collect()
}
