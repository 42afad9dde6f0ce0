//! `PAGEMAP_SCAN`: which pages of a task are populated, and which of them were written.

use std::{fs::File, io, os::fd::AsRawFd};

use nix::libc;

use crate::memory::{maps::Span, sys::check};

/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: u64 = 0xc060_6610;

const WRITTEN: u64 = 1 << 1;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;
const ZERO_PAGE: u64 = 1 << 5;

const WP_MATCHING: u64 = 1 << 0;
const CHECK_WPASYNC: u64 = 1 << 1;

/// Regions that one call can answer.
const VECTOR: usize = 4096;

#[repr(C)]
struct Argument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Raw {
    start: u64,
    end: u64,
    categories: u64,
}

/// Populated pages that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub span: Span,
    /// Since the last scan that protects; true where nothing tracks writes.
    pub written: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Protects what was written, so that the next write is noticed. `EPERM` where the mapping
    /// does not track writes.
    Protect,
    /// Only looks, at any mapping.
    Look,
}

/// A task's pagemap, and a buffer for answers.
pub struct Scan {
    pagemap: File,
    vector: Vec<Raw>,
}

impl Scan {
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pagemap: File::open(format!("/proc/{pid}/pagemap"))?,
            vector: vec![Raw::default(); VECTOR],
        })
    }

    /// Adds the populated pages of a span, in order. Pages that were only ever read as zero are
    /// not populated.
    pub fn populated(&mut self, span: Span, kind: Kind, found: &mut Vec<Region>) -> io::Result<()> {
        let mut start = span.start;
        while start < span.end {
            let mut argument = Argument {
                size: size_of::<Argument>() as u64,
                flags: match kind {
                    Kind::Protect => WP_MATCHING | CHECK_WPASYNC,
                    Kind::Look => 0,
                },
                start,
                end: span.end,
                walk_end: 0,
                vec: self.vector.as_mut_ptr() as u64,
                vec_len: self.vector.len() as u64,
                max_pages: 0,
                category_inverted: ZERO_PAGE,
                category_mask: ZERO_PAGE,
                category_anyof_mask: PRESENT | SWAPPED,
                return_mask: WRITTEN,
            };
            // SAFETY: the argument is whole, and its vector has room for `vec_len` regions.
            let count = check(libc::c_long::from(unsafe {
                libc::ioctl(
                    self.pagemap.as_raw_fd(),
                    PAGEMAP_SCAN as _,
                    &raw mut argument,
                )
            }))?;
            for raw in &self.vector[..count as usize] {
                found.push(Region {
                    span: Span {
                        start: raw.start,
                        end: raw.end,
                    },
                    written: raw.categories & WRITTEN != 0,
                });
            }
            // The kernel fills a vector of its own, of 512, over and over, and where it stopped for
            // that is what it tells at the end, unless ours is full.
            let told = &self.vector[..count as usize];
            let last = told.last().map_or(0, |raw| raw.end);
            if told.len() < self.vector.len() {
                return Ok(());
            }
            let next = argument.walk_end.max(last);
            if next <= start {
                return Err(io::Error::other("pagemap scan makes no progress"));
            }
            start = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::PAGE;

    #[test]
    fn each_page_is_told_once_however_many_regions_there_are() {
        for regions in [100, 700, VECTOR as u64, VECTOR as u64 + 700] {
            let length = 2 * regions * PAGE;
            let mut memory = vec![0u8; (length + PAGE) as usize];
            let start = (memory.as_ptr() as u64).next_multiple_of(PAGE);
            // SAFETY: the range is of this buffer, and the advice changes no content.
            unsafe {
                libc::madvise(start as *mut _, length as usize, libc::MADV_NOHUGEPAGE);
            }
            let skip = (start - memory.as_ptr() as u64) as usize;
            for region in 0..regions {
                memory[skip + (2 * region * PAGE) as usize] = 1;
            }
            let span = Span {
                start,
                end: start + length - PAGE,
            };
            let mut found = Vec::new();
            let mut scan = Scan::open(std::process::id() as i32).unwrap();
            scan.populated(span, Kind::Look, &mut found).unwrap();
            let told: Vec<u64> = found.iter().map(|region| region.span.start).collect();
            let there: Vec<u64> = (0..regions).map(|at| start + 2 * at * PAGE).collect();
            assert!(told == there, "{} of {regions} regions", told.len());
        }
    }
}
