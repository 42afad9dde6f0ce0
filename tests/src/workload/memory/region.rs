//! The memory of one process, what it should hold, and the thread that rewrites it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use memmap2::MmapMut;

use crate::workload::page::{self, Dice, SIZE};

/// Between two bursts of the writer.
const BURST: Duration = Duration::from_millis(2);
/// What the writer was kept from writing for longer than this is not caught up with: a writer that
/// was frozen goes on at its rate.
const DEBT: Duration = Duration::from_millis(20);

/// Shared between the writer and who checks.
#[derive(Clone)]
pub struct Region(Arc<Mutex<Pages>>);

struct Pages {
    process: usize,
    memory: MmapMut,
    /// Who wrote each page last, and how often it was written.
    versions: Vec<(usize, u32)>,
    /// Of a page, that differ.
    words: u64,
    paused: bool,
}

impl Region {
    /// Anonymous private memory, every page filled with so many words that differ.
    pub fn fill(process: usize, pages: usize, words: u64) -> Result<Self> {
        let mut pages = Pages {
            process,
            memory: MmapMut::map_anon(pages * SIZE)?,
            versions: vec![(process, 0); pages],
            words,
            paused: false,
        };
        for page in 0..pages.versions.len() {
            pages.write(page);
        }
        Ok(Self(Arc::new(Mutex::new(pages))))
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A forked process writes what no other does.
    pub fn belongs_to(&self, process: usize) {
        self.lock().process = process;
    }

    /// Rewrites random pages from now on, `rate` bytes a second in all.
    pub fn rewrite(&self, rate: u64) {
        if rate == 0 {
            return;
        }
        let region = self.clone();
        thread::spawn(move || {
            let mut dice = Dice::new(region.lock().process as u64);
            let mut owed = 0.0;
            let mut last = Instant::now();
            loop {
                thread::sleep(BURST);
                let now = Instant::now();
                owed += (now - last).min(DEBT).as_secs_f64() * rate as f64;
                last = now;
                let mut pages = region.lock();
                while owed >= SIZE as f64 && !pages.paused {
                    let page = dice.below(pages.versions.len());
                    pages.write(page);
                    owed -= SIZE as f64;
                }
                if pages.paused {
                    owed = 0.0;
                }
            }
        });
    }

    /// Once this has returned nothing is being written.
    pub fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// How many pages there are, or the first that is wrong.
    pub fn verify(&self) -> Result<usize, usize> {
        let pages = self.lock();
        for page in 0..pages.versions.len() {
            let (found, seed) = (pages.page(page), pages.seed(page));
            if page::wrong_word_again(found, seed, pages.words).is_some() {
                return Err(page);
            }
        }
        Ok(pages.versions.len())
    }

    /// Over all of the memory, in order.
    pub fn hash(&self) -> u64 {
        let pages = self.lock();
        pages.memory.chunks_exact(8).fold(0, |hash: u64, word| {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95)
        })
    }
}

impl Pages {
    fn seed(&self, page: usize) -> u64 {
        let (writer, version) = self.versions[page];
        page::seed(&[writer as u64, page as u64, version.into()])
    }

    fn page(&self, page: usize) -> &[u8] {
        &self.memory[page * SIZE..][..SIZE]
    }

    fn write(&mut self, page: usize) {
        let (_, version) = self.versions[page];
        self.versions[page] = (self.process, version.wrapping_add(1));
        let (seed, words) = (self.seed(page), self.words);
        page::fill_again(&mut self.memory[page * SIZE..][..SIZE], seed, words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_changed_by_itself_is_named() {
        let region = Region::fill(3, 10, page::WORDS).unwrap();
        assert_eq!(region.verify(), Ok(10));
        let hash = region.hash();
        region.lock().memory[7 * SIZE + 100] ^= 1;
        assert_eq!(region.verify(), Err(7));
        assert_ne!(region.hash(), hash);
        region.lock().write(7);
        assert_eq!(region.verify(), Ok(10));
    }
}
