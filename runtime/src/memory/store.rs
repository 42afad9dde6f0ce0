//! The destination's copy of carried memory: a sparse memory file per task.
//!
//! The offset of a page is its address; a page that was never sent is a hole, and zero. What a
//! store holds is handed to the pager as an index, itself a memory file:
//!
//! ```text
//! 8 bytes   tasks
//! tasks × { task: u64, fd: u64 (of this process), pages, pages }     here, and still to come
//! pages     { blocks: u64, blocks × { number: u64, bits: 8 × u64 } }     blocks of 2 MiB, a bit a page
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::{
    Content, FRAME_PAGES, Fingerprint, Frame, PAGE, frame::cells, maps::Span, pager::IndexAt,
    pages::PageSet,
};

/// No user address of any supported machine is above.
const HIGHEST: u64 = 1 << 56;
/// Tasks of one container at the most.
const TASKS: usize = 1 << 15;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("frame of task {task} at {address:#x} is not valid")]
    Frame { task: u32, address: u64 },
    #[error("memory of task {task} at {address:#x} is not what was read: its hash is another one")]
    Hash { task: u32, address: u64 },
    #[error("memory of more than {TASKS} tasks")]
    Tasks,
    #[error("memory of task {task} can't be kept")]
    Write {
        task: u32,
        #[source]
        source: io::Error,
    },
    #[error("memory of task {task} can't be read again")]
    Read {
        task: u32,
        #[source]
        source: io::Error,
    },
    #[error("memory index can't be made")]
    Index(#[source] io::Error),
    #[error("{need} bytes of memory arrive, and {limit} were announced")]
    TooMuch { need: u64, limit: u64 },
}

/// Memory of one container that has not begun to run here. Frames may be applied by several
/// threads at once, as long as those of a cell are not.
pub struct Store {
    tasks: Mutex<BTreeMap<u32, Arc<Task>>>,
    /// Bytes it may hold.
    limit: u64,
    bytes: AtomicU64,
}

struct Task {
    file: File,
    has: Mutex<PageSet>,
    /// Comes once the container runs here.
    later: Mutex<PageSet>,
}

/// What the pager opens. Keeps everything open until it has.
pub struct Index {
    file: OwnedFd,
    _tasks: BTreeMap<u32, Arc<Task>>,
}

impl Index {
    pub fn at(&self) -> IndexAt {
        IndexAt {
            pid: std::process::id() as i32,
            fd: self.file.as_raw_fd(),
        }
    }
}

impl Store {
    /// `limit`: bytes that a hostile source may fill at the most.
    pub fn new(limit: u64) -> Self {
        Self {
            tasks: Mutex::default(),
            limit,
            bytes: AtomicU64::new(0),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn apply(&self, frame: &Frame) -> Result<(), StoreError> {
        let Frame { task, address, .. } = *frame;
        let invalid = StoreError::Frame { task, address };
        if !address.is_multiple_of(PAGE) || address >= HIGHEST {
            return Err(invalid);
        }
        match &frame.content {
            Content::Pages { bytes, .. } => {
                let length = bytes.len() as u64;
                if length == 0 || !length.is_multiple_of(PAGE) || length > FRAME_PAGES as u64 * PAGE
                {
                    return Err(invalid);
                }
                if !frame.is_whole() {
                    return Err(StoreError::Hash { task, address });
                }
                let span = Span {
                    start: address,
                    end: address + length,
                };
                let kept = self.task(task)?;
                // Before it is filled: memory that is not there ends in no error, but in the
                // death of some process.
                let had = kept.has.lock().expect("no holder panics").count(span) * PAGE;
                let need = self.bytes.fetch_add(length - had, Ordering::Relaxed) + length - had;
                if need > self.limit {
                    let limit = self.limit;
                    return Err(StoreError::TooMuch { need, limit });
                }
                kept.file
                    .write_all_at(bytes, address)
                    .map_err(|source| StoreError::Write { task, source })?;
                kept.has.lock().expect("no holder panics").insert(span);
                kept.later.lock().expect("no holder panics").remove(span);
                Ok(())
            }
            Content::Later(pages) => {
                let span = checked_span(address, *pages).ok_or(invalid)?;
                // Room for what will come.
                let length = span.end - span.start;
                let kept = self.task(task)?;
                let mut has = kept.has.lock().expect("no holder panics");
                let had = has.count(span) * PAGE;
                let need = self
                    .bytes
                    .load(Ordering::Relaxed)
                    .saturating_add(length - had);
                if need > self.limit {
                    let limit = self.limit;
                    return Err(StoreError::TooMuch { need, limit });
                }
                self.bytes.fetch_add(length - had, Ordering::Relaxed);
                has.remove(span);
                drop(has);
                kept.later.lock().expect("no holder panics").insert(span);
                punch(&kept.file, span).map_err(|source| StoreError::Write { task, source })
            }
            Content::Zero(pages) => {
                let span = checked_span(address, *pages).ok_or(invalid)?;
                let kept = self.tasks.lock().expect("no holder panics");
                let Some(kept) = kept.get(&task).cloned() else {
                    return Ok(());
                };
                let mut has = kept.has.lock().expect("no holder panics");
                self.bytes
                    .fetch_sub(has.count(span) * PAGE, Ordering::Relaxed);
                has.remove(span);
                kept.later.lock().expect("no holder panics").remove(span);
                drop(has);
                punch(&kept.file, span).map_err(|source| StoreError::Write { task, source })
            }
        }
    }

    fn task(&self, task: u32) -> Result<Arc<Task>, StoreError> {
        let mut tasks = self.tasks.lock().expect("no holder panics");
        if let Some(found) = tasks.get(&task) {
            return Ok(found.clone());
        }
        if tasks.len() >= TASKS {
            return Err(StoreError::Tasks);
        }
        let file = memfd_create("godwit-memory", MemfdFlags::CLOEXEC).map_err(|errno| {
            StoreError::Write {
                task,
                source: errno.into(),
            }
        })?;
        let made = Arc::new(Task {
            file: file.into(),
            has: Mutex::default(),
            later: Mutex::default(),
        });
        tasks.insert(task, made.clone());
        Ok(made)
    }

    /// What it holds, read again: to be compared with what the source holds.
    pub fn fingerprints(&self) -> Result<Vec<Fingerprint>, StoreError> {
        let tasks = self.tasks.lock().expect("no holder panics").clone();
        let mut found = Vec::new();
        for (task, kept) in tasks {
            let spans = kept.has.lock().expect("no holder panics").spans();
            let mut print = Fingerprint::of(task);
            for span in spans.into_iter().flat_map(cells) {
                let mut buffer = vec![0; (span.end - span.start) as usize];
                kept.file
                    .read_exact_at(&mut buffer, span.start)
                    .map_err(|source| StoreError::Read { task, source })?;
                print.add(span.start, &buffer);
            }
            found.extend(print.anything());
        }
        Ok(found)
    }

    /// Everything is here: what the pager is told.
    pub fn index(self) -> Result<Index, StoreError> {
        let tasks = self.tasks.into_inner().expect("no holder panics");
        let mut words: Vec<u64> = vec![tasks.len() as u64];
        for (task, kept) in &tasks {
            words.extend([u64::from(*task), kept.file.as_raw_fd() as u64]);
            for pages in [&kept.has, &kept.later] {
                let pages = pages.lock().expect("no holder panics");
                let blocks = pages.blocks();
                words.push(blocks.len() as u64);
                for (number, bits) in blocks {
                    words.push(number);
                    words.extend(bits);
                }
            }
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let file = memfd_create("godwit-memory-index", MemfdFlags::CLOEXEC)
            .map_err(|errno| StoreError::Index(errno.into()))?;
        let mut file = File::from(file);
        file.write_all(&bytes).map_err(StoreError::Index)?;
        Ok(Index {
            file: file.into(),
            _tasks: tasks,
        })
    }
}

/// A span that a peer named by its beginning and its length, if there can be such a one.
fn checked_span(address: u64, pages: u64) -> Option<Span> {
    let end = pages.checked_mul(PAGE)?.checked_add(address)?;
    (pages > 0 && end <= HIGHEST).then_some(Span {
        start: address,
        end,
    })
}

/// Gives a span's memory back.
pub(super) fn punch(file: &File, span: Span) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, span.start, span.end - span.start)?)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn later(address: u64, count: u64) -> Frame {
        Frame {
            task: 1,
            address,
            content: Content::Later(count),
        }
    }

    fn zero(address: u64, count: u64) -> Frame {
        Frame {
            task: 1,
            address,
            content: Content::Zero(count),
        }
    }

    fn pages(address: u64, count: u64, byte: u8) -> Frame {
        Frame::pages(1, address, vec![byte; (count * PAGE) as usize].into())
    }

    #[test]
    fn pages_are_counted_once_and_taken_back() {
        let store = Store::new(1 << 20);
        store.apply(&pages(0x10000, 4, 1)).unwrap();
        store.apply(&pages(0x12000, 4, 2)).unwrap();
        assert_eq!(store.bytes(), 6 * PAGE);
        store.apply(&zero(0x11000, 2)).unwrap();
        assert_eq!(store.bytes(), 4 * PAGE);
        let mut page = [9; 4096];
        let kept = store.task(1).unwrap();
        let file = &kept.file;
        file.read_exact_at(&mut page, 0x11000).unwrap();
        assert_eq!(page, [0; 4096]);
        file.read_exact_at(&mut page, 0x13000).unwrap();
        assert_eq!(page, [2; 4096]);
    }

    #[test]
    fn what_comes_later_replaces_what_came_and_is_counted() {
        let store = Store::new(8 * PAGE);
        store.apply(&pages(0x10000, 4, 1)).unwrap();
        store.apply(&later(0x12000, 4)).unwrap();
        assert_eq!(store.bytes(), 6 * PAGE);
        let kept = store.task(1).unwrap();
        assert_eq!(kept.has.lock().unwrap().len(), 2);
        assert_eq!(kept.later.lock().unwrap().len(), 4);
        let mut page = [9; 4096];
        kept.file.read_exact_at(&mut page, 0x12000).unwrap();
        assert_eq!(page, [0; 4096]);
    }

    #[test]
    fn what_a_hostile_source_sends_is_refused() {
        let store = Store::new(8 * PAGE);
        for bad in [
            pages(0x10001, 1, 1),
            pages(HIGHEST, 1, 1),
            pages(0x1000, 0, 1),
            pages(0x1000, 65, 1),
            Frame::pages(1, 0x1000, Bytes::from_static(b"short")),
            zero(0x1000, 0),
            zero(0x1000, u64::MAX),
            zero(0x1000, u64::MAX / PAGE),
            later(0x1000, 0),
            later(0x1000, u64::MAX / PAGE),
            later(0x1000, 9),
        ] {
            assert!(store.apply(&bad).is_err(), "{:#x}", bad.address);
        }
        store.apply(&pages(0x1000, 8, 1)).unwrap();
        assert!(matches!(
            store.apply(&pages(0x10000, 1, 1)),
            Err(StoreError::TooMuch { .. })
        ));
    }

    #[test]
    fn a_frame_that_changed_on_its_way_is_not_kept() {
        let store = Store::new(1 << 20);
        let mut frame = pages(0x10000, 2, 1);
        if let Content::Pages { bytes, .. } = &mut frame.content {
            let mut other = bytes.to_vec();
            other[5000] ^= 1;
            *bytes = other.into();
        }
        let error = store.apply(&frame).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Hash {
                task: 1,
                address: 0x10000
            }
        ));
        assert!(error.to_string().contains("task 1 at 0x10000"), "{error}");
        assert_eq!(store.bytes(), 0);
    }

    #[test]
    fn what_is_kept_has_the_fingerprint_of_what_was_read() {
        let store = Store::new(1 << 20);
        store.apply(&pages(0x10000, 4, 1)).unwrap();
        store.apply(&pages(0x7f_0003_f000, 1, 3)).unwrap();
        store.apply(&pages(0x7f_0004_0000, 1, 0)).unwrap();
        store.apply(&zero(0x11000, 2)).unwrap();
        let mut print = Fingerprint::of(1);
        print.add(0x10000, &[1; 4096]);
        print.add(0x13000, &[1; 4096]);
        print.add(0x7f_0003_f000, &[3; 4096]);
        assert_eq!(print.pages, 3);
        assert_eq!(store.fingerprints().unwrap(), [print]);
        // One bit in the file, which no frame brought.
        let kept = store.task(1).unwrap();
        kept.file.write_all_at(&[3], 0x13fff).unwrap();
        assert_ne!(store.fingerprints().unwrap(), [print]);
    }
}
