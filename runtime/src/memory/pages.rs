//! A set of pages, as bits: small for what lies together, and quick to subtract from.

use std::collections::BTreeMap;

use super::{PAGE, maps::Span};

const BITS: u64 = 512;
/// Bytes that one block covers: 2 MiB.
const BLOCK: u64 = BITS * PAGE;

/// Pages by their address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageSet {
    blocks: BTreeMap<u64, [u64; 8]>,
}

impl PageSet {
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn len(&self) -> u64 {
        let bits = self.blocks.values().flatten();
        bits.map(|word| u64::from(word.count_ones())).sum()
    }

    /// How many pages of a span are in it.
    pub fn count(&self, span: Span) -> u64 {
        self.blocks
            .range(blocks(span))
            .flat_map(|(block, bits)| {
                words(within(*block, span)).map(|(_, word, mask)| bits[word] & mask)
            })
            .map(|bits| u64::from(bits.count_ones()))
            .sum()
    }

    pub fn insert(&mut self, span: Span) {
        for (block, word, mask) in words(span) {
            self.blocks.entry(block).or_default()[word] |= mask;
        }
    }

    /// A span may cover far more than there is.
    pub fn remove(&mut self, span: Span) {
        let mut empty = Vec::new();
        for (block, bits) in self.blocks.range_mut(blocks(span)) {
            for (_, word, mask) in words(within(*block, span)) {
                bits[word] &= !mask;
            }
            if bits.iter().all(|word| *word == 0) {
                empty.push(*block);
            }
        }
        for block in empty {
            self.blocks.remove(&block);
        }
    }

    pub fn contains(&self, address: u64) -> bool {
        self.blocks.get(&(address / BLOCK)).is_some_and(|bits| {
            let bit = address % BLOCK / PAGE;
            bits[(bit / 64) as usize] >> (bit % 64) & 1 == 1
        })
    }

    /// The pages of the set that lie in a span, which may cover far more than there is.
    pub fn within(&self, span: Span) -> Vec<Span> {
        let mut found = Self::default();
        for (block, bits) in self.blocks.range(blocks(span)) {
            for (_, word, mask) in words(within(*block, span)) {
                if bits[word] & mask != 0 {
                    found.blocks.entry(*block).or_default()[word] |= bits[word] & mask;
                }
            }
        }
        found.spans()
    }

    /// The spans of what both have.
    pub fn common(&self, other: &Self) -> Vec<Span> {
        let mut both = Self::default();
        for (block, bits) in &other.blocks {
            if let Some(own) = self.blocks.get(block) {
                let bits = std::array::from_fn(|word| bits[word] & own[word]);
                both.blocks.insert(*block, bits);
            }
        }
        both.spans()
    }

    /// Blocks of 2 MiB: number and bits. What [`from_blocks`](Self::from_blocks) reads.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = (u64, &[u64; 8])> {
        self.blocks.iter().map(|(block, bits)| (*block, bits))
    }

    pub fn from_blocks(blocks: impl IntoIterator<Item = (u64, [u64; 8])>) -> Self {
        Self {
            blocks: blocks.into_iter().collect(),
        }
    }

    /// The first pages at or behind an address, together at most `most`; from the beginning
    /// where none is behind it.
    pub fn next(&self, address: u64, most: u64) -> Option<Span> {
        self.next_behind(address, most)
            .or_else(|| self.next_behind(0, most))
    }

    fn next_behind(&self, address: u64, most: u64) -> Option<Span> {
        let first = address / BLOCK;
        for (block, bits) in self.blocks.range(first..) {
            for (index, word) in bits.iter().enumerate() {
                let base = block * BLOCK + index as u64 * 64 * PAGE;
                let skip = (address.saturating_sub(base) / PAGE).min(64);
                let rest = word & if skip == 64 { 0 } else { u64::MAX << skip };
                if rest != 0 {
                    let start = base + u64::from(rest.trailing_zeros()) * PAGE;
                    return Some(self.run(start, most));
                }
            }
        }
        None
    }

    /// The run of pages of the set that begins here.
    fn run(&self, start: u64, most: u64) -> Span {
        let mut end = start;
        while end < start + most * PAGE && self.contains(end) {
            end += PAGE;
        }
        Span { start, end }
    }

    /// The pages of the set as spans in order, as long as they can be.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (block, bits) in &self.blocks {
            for (index, word) in bits.iter().enumerate() {
                let mut rest = *word;
                let base = block * BLOCK + index as u64 * 64 * PAGE;
                while rest != 0 {
                    let first = rest.trailing_zeros();
                    let length = (rest >> first).trailing_ones();
                    let start = base + u64::from(first) * PAGE;
                    let end = start + u64::from(length) * PAGE;
                    match spans.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => spans.push(Span { start, end }),
                    }
                    rest &= !mask(first, length);
                }
            }
        }
        spans
    }
}

/// The blocks that a span touches.
fn blocks(span: Span) -> std::ops::Range<u64> {
    let first = span.start / BLOCK;
    first..span.end.div_ceil(BLOCK).max(first)
}

/// The part of a span that lies in a block.
fn within(block: u64, span: Span) -> Span {
    Span {
        start: span.start.max(block * BLOCK),
        end: span.end.min((block + 1) * BLOCK),
    }
}

fn mask(first: u32, length: u32) -> u64 {
    let ones = if length == 64 {
        u64::MAX
    } else {
        (1 << length) - 1
    };
    ones << first
}

/// The words that a span touches: block, index in it, and which bits.
fn words(span: Span) -> impl Iterator<Item = (u64, usize, u64)> {
    let (first, end) = (span.start / PAGE, span.end / PAGE);
    (first / 64..end.div_ceil(64))
        .map(move |word| {
            let from = first.max(word * 64) - word * 64;
            let to = end.min(word * 64 + 64) - word * 64;
            let bits = mask(from as u32, (to - from) as u32);
            (word / 8, (word % 8) as usize, bits)
        })
        .filter(|(.., bits)| *bits != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..2000, 0u64..700), 1..40)) {
            let mut set = PageSet::default();
            let mut model = BTreeSet::new();
            for (insert, first, count) in steps {
                let span = Span { start: first * PAGE, end: (first + count) * PAGE };
                if insert {
                    set.insert(span);
                    model.extend(first..first + count);
                } else {
                    set.remove(span);
                    model.retain(|page| !(first..first + count).contains(page));
                }
            }
            let pages: BTreeSet<u64> = set
                .spans()
                .iter()
                .flat_map(|span| span.start / PAGE..span.end / PAGE)
                .collect();
            prop_assert_eq!(&pages, &model);
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.is_empty(), model.is_empty());
            for pair in set.spans().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            prop_assert!(model.iter().all(|page| set.contains(page * PAGE)));
        }
    }
}
