//! A mapping and what each of its pages must hold.

use std::fs::File;

use anyhow::{Context, Result, bail};

use crate::workload::{
    page::{self, Dice},
    sys::{Backing, Mapping},
};

/// What a page holds that was never written.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Zero,
    /// What [`file_seed`] says, from this page of the file on.
    File {
        first: usize,
    },
}

/// The content of a page of the mapped file.
pub fn file_seed(page: usize) -> u64 {
    page::seed(&[u64::MAX, page as u64])
}

pub struct Area {
    mapping: Mapping,
    origin: Origin,
    /// The seed of what was written to each page. None: as when it was mapped.
    written: Vec<Option<u64>>,
    writable: bool,
}

impl Area {
    pub fn anonymous(pages: usize) -> Result<Self> {
        Self::new(pages, Backing::Private, Origin::Zero)
    }

    /// A private mapping of a file that [`file_seed`] describes.
    pub fn file(file: &File, pages: usize) -> Result<Self> {
        Self::new(pages, Backing::FilePrivate(file), Origin::File { first: 0 })
    }

    fn new(pages: usize, backing: Backing<'_>, origin: Origin) -> Result<Self> {
        let area = Self {
            mapping: Mapping::new(pages, backing).context("mmap")?,
            origin,
            written: vec![None; pages],
            writable: true,
        };
        // Not read whole: what was never touched is a case of its own.
        area.verify_page(pages - 1).context("freshly mapped")?;
        Ok(area)
    }

    pub fn pages(&self) -> usize {
        self.mapping.pages()
    }

    pub fn is_file(&self) -> bool {
        matches!(self.origin, Origin::File { .. })
    }

    pub fn verify(&self) -> Result<()> {
        (0..self.pages()).try_for_each(|page| self.verify_page(page))
    }

    pub fn verify_page(&self, page: usize) -> Result<()> {
        let bytes = self.mapping.page(page);
        let (wrong, expected) = match (self.written[page], self.origin) {
            (Some(seed), _) => (page::wrong_word(bytes, seed), "what was written"),
            (None, Origin::Zero) => (page::nonzero_word(bytes), "zeroes"),
            (None, Origin::File { first }) => (
                page::wrong_word(bytes, file_seed(first + page)),
                "the file's content",
            ),
        };
        if let Some(word) = wrong {
            let found = &bytes[word * 8..][..8];
            bail!(
                "page {page} of {} at {:p} is not {expected}: word {word} is {found:02x?}, {:?}",
                self.pages(),
                bytes.as_ptr(),
                self.origin
            );
        }
        Ok(())
    }

    pub fn write(&mut self, page: usize, seed: u64) -> Result<()> {
        self.protect(true)?;
        // What is about to be overwritten would never be seen.
        self.verify_page(page)?;
        page::fill(self.mapping.page_mut(page), seed);
        self.written[page] = Some(seed);
        Ok(())
    }

    /// Gives some pages back.
    pub fn discard(&mut self, dice: &mut Dice) -> Result<()> {
        let first = dice.below(self.pages());
        let count = 1 + dice.below(self.pages() - first);
        self.mapping.discard(first, count).context("madvise")?;
        self.written[first..first + count].fill(None);
        self.verify_page(first).context("after MADV_DONTNEED")
    }

    pub fn protect(&mut self, writable: bool) -> Result<()> {
        if self.writable != writable {
            self.mapping.protect(writable).context("mprotect")?;
            self.writable = writable;
        }
        Ok(())
    }

    /// Longer, with new pages at the end, or shorter. Not for files, which end somewhere.
    pub fn resize(&mut self, pages: usize) -> Result<()> {
        self.mapping.resize(pages).context("mremap")?;
        self.written.resize(pages, None);
        self.verify_page(pages - 1).context("after mremap")
    }

    /// To another address.
    pub fn relocate(&mut self) -> Result<()> {
        let target = Mapping::new(self.pages(), Backing::Private).context("mmap")?;
        self.mapping.move_onto(target).context("mremap to a place")
    }

    /// Unmaps some pages at its beginning.
    pub fn cut_front(&mut self, pages: usize) -> Result<()> {
        self.mapping.cut_front(pages).context("munmap")?;
        self.written.drain(..pages);
        if let Origin::File { first } = &mut self.origin {
            *first += pages;
        }
        self.verify_page(0).context("after munmap")
    }
}
