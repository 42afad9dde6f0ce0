//! `/proc/PID/pagemap`: a word for each page.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{PAGE, maps::Span, sys::Region};

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// Says of a page that is swapped, by its word, that it holds nothing: a touch kills.
const GUARD: u64 = 1 << 58;
const SOFT_DIRTY: u64 = 1 << 55;

/// Words that are read together: for 2 MiB of memory each.
const WORDS: usize = 64 * 512;

/// What the kernel says of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits(u64);

impl Bits {
    fn is_populated(self) -> bool {
        self.0 & (PRESENT | SWAPPED) != 0 && self.0 & GUARD == 0
    }

    pub fn is_soft_dirty(self) -> bool {
        self.0 & SOFT_DIRTY != 0
    }
}

pub struct Pagemap(File);

impl Pagemap {
    pub fn open(pid: i32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    pub fn bits(&self, address: u64) -> io::Result<Bits> {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, address / PAGE * 8)?;
        Ok(Bits(u64::from_ne_bytes(word)))
    }

    /// The populated pages of these mappings; written are those with a soft-dirty bit. Pages that
    /// were only ever read as zero can't be told from others, and are among them.
    pub fn populated(&self, spans: &[Span]) -> io::Result<Vec<Region>> {
        let mut found = Vec::new();
        let mut bytes = vec![0; WORDS * 8];
        for span in spans {
            let mut start = span.start;
            while start < span.end {
                let count = (((span.end - start) / PAGE) as usize).min(WORDS);
                let part = &mut bytes[..count * 8];
                self.0.read_exact_at(part, start / PAGE * 8)?;
                let (words, _) = part.as_chunks::<8>();
                let bits = words.iter().map(|word| Bits(u64::from_ne_bytes(*word)));
                add(start, bits, &mut found);
                start += count as u64 * PAGE;
            }
        }
        Ok(found)
    }
}

/// Adds the populated pages among those from an address on, joined with what lies before it.
fn add(start: u64, bits: impl Iterator<Item = Bits>, found: &mut Vec<Region>) {
    for (address, bits) in (start..).step_by(PAGE as usize).zip(bits) {
        if !bits.is_populated() {
            continue;
        }
        let written = bits.is_soft_dirty();
        let end = address + PAGE;
        match found.last_mut() {
            Some(last) if last.span.end == address && last.written == written => {
                last.span.end = end;
            }
            _ => found.push(Region {
                span: Span {
                    start: address,
                    end,
                },
                written,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_regions_of_populated_pages_by_whether_they_were_written() {
        let (dirty, clean) = (PRESENT | SOFT_DIRTY, PRESENT | 0x1234);
        let mut found = Vec::new();
        let words = [
            dirty,
            dirty,
            clean,
            0,
            // Never touched in a new mapping.
            SOFT_DIRTY,
            SWAPPED | SOFT_DIRTY,
            SWAPPED,
            SWAPPED | GUARD,
            clean,
        ];
        add(8 * PAGE, words.into_iter().map(Bits), &mut found);
        // Goes on where the last part ended.
        add(17 * PAGE, [clean, dirty].into_iter().map(Bits), &mut found);
        let shown: Vec<(u64, u64, bool)> = found
            .iter()
            .map(|r| (r.span.start / PAGE, r.span.end / PAGE, r.written))
            .collect();
        assert_eq!(
            shown,
            [
                (8, 10, true),
                (10, 11, false),
                (13, 14, true),
                (14, 15, false),
                (16, 18, false),
                (18, 19, true)
            ]
        );
    }
}
