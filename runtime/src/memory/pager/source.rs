//! The store as the pager has it: one task's memory file, read through windows.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::IndexAt;
use crate::memory::{
    PAGE, maps::Span, pages::PageSet, store::punch, sys::Mapped, sys::pidfd_getfd,
};

/// Bytes of the file that are mapped at once.
const WINDOW: u64 = 1 << 30;

/// One task's memory.
pub struct Source {
    file: File,
    windows: BTreeMap<u64, Mapped>,
    /// Another task came of this one: what one has got, the other may still need.
    pub shared: bool,
    /// Has not come yet.
    missing: PageSet,
}

/// Takes the store from the process that received it.
pub fn open(at: IndexAt) -> io::Result<BTreeMap<u32, (Source, PageSet)>> {
    let pid = Pid::from_raw(at.pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let index = File::from(pidfd_getfd(pidfd.as_fd(), at.fd)?);
    let mut words = Words::read(&index)?;
    let mut sources = BTreeMap::new();
    for _ in 0..words.next()? {
        let task = words.next()? as u32;
        let file = take(pidfd.as_fd(), words.next()? as i32)?;
        let mut pending = words.pages()?;
        let missing = words.pages()?;
        for span in missing.spans() {
            pending.insert(span);
        }
        let source = Source {
            file,
            windows: BTreeMap::new(),
            shared: false,
            missing,
        };
        sources.insert(task, (source, pending));
    }
    Ok(sources)
}

fn take(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<File> {
    Ok(File::from(pidfd_getfd(pidfd, fd)?))
}

impl Source {
    /// Of a task that nothing was sent of.
    pub fn empty() -> io::Result<Self> {
        let file = memfd_create("godwit-memory", MemfdFlags::CLOEXEC)?;
        Ok(Self {
            file: file.into(),
            windows: BTreeMap::new(),
            shared: false,
            missing: PageSet::default(),
        })
    }

    /// The bytes of a span that does not cross a window.
    pub fn bytes(&mut self, span: Span) -> io::Result<&[u8]> {
        let window = span.start / WINDOW;
        if !self.windows.contains_key(&window) {
            let mapped = Mapped::new(&self.file, window * WINDOW, WINDOW as usize)?;
            self.windows.insert(window, mapped);
        }
        let from = (span.start % WINDOW) as usize;
        let length = (span.end - span.start) as usize;
        Ok(&self.windows[&window].bytes()[from..from + length])
    }

    /// What has not come yet.
    pub fn missing(&self) -> &PageSet {
        &self.missing
    }

    /// The pages of a span that are here, from its beginning on.
    pub fn here(&self, span: Span) -> Span {
        let mut end = span.end;
        if self.missing.count(span) > 0 {
            end = span.start;
            while !self.missing.contains(end) {
                end += PAGE;
            }
        }
        Span {
            start: span.start,
            end,
        }
    }

    /// Takes pages that were missing; None: zeros. Answers those of them that were.
    pub fn arrive(&mut self, span: Span, bytes: Option<&[u8]>) -> io::Result<Vec<Span>> {
        let came = self.missing.within(span);
        for part in &came {
            if let Some(bytes) = bytes {
                let from = (part.start - span.start) as usize;
                let data = &bytes[from..from + (part.end - part.start) as usize];
                self.file.write_all_at(data, part.start)?;
            } else if self.file.metadata()?.len() < part.end {
                // A hole is zeros; what lies behind the end can't be looked at.
                self.file.set_len(part.end)?;
            }
            self.missing.remove(*part);
        }
        Ok(came)
    }

    /// Gives back what has been delivered, unless somebody else may need it.
    pub fn free(&self, span: Span) -> io::Result<()> {
        if self.shared {
            return Ok(());
        }
        punch(&self.file, span)
    }
}

/// Where a window ends.
pub fn window_end(address: u64) -> u64 {
    (address / WINDOW + 1) * WINDOW
}

struct Words {
    words: Vec<u64>,
    at: usize,
}

impl Words {
    fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; file.metadata()?.len() as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let words = bytes.as_chunks::<8>().0.iter();
        Ok(Self {
            words: words.map(|word| u64::from_ne_bytes(*word)).collect(),
            at: 0,
        })
    }

    fn pages(&mut self) -> io::Result<PageSet> {
        let mut blocks = Vec::new();
        for _ in 0..self.next()? {
            let number = self.next()?;
            let mut bits = [0; 8];
            for word in &mut bits {
                *word = self.next()?;
            }
            blocks.push((number, bits));
        }
        Ok(PageSet::from_blocks(blocks))
    }

    fn next(&mut self) -> io::Result<u64> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "memory index is short"))
    }
}
