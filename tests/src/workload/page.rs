//! What the pages of self-checking workloads hold: noise that follows from a seed, so that a page
//! can be checked without a copy of it. Used by `memory` and `churn`.

pub const SIZE: usize = 4096;
/// Of one page.
pub const WORDS: u64 = SIZE as u64 / 8;

/// One number from several, well mixed: the same inputs always give the same seed.
pub fn seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |so_far, part| {
        mix(so_far ^ mix(*part))
    })
}

/// Fills a page. No word of it is zero, and none compresses.
pub fn fill(page: &mut [u8], seed: u64) {
    fill_again(page, seed, WORDS);
}

/// The same, with only so many words that differ, again and again: so it does compress.
pub fn fill_again(page: &mut [u8], seed: u64, words: u64) {
    for (word, index) in page.chunks_exact_mut(8).zip(0u64..) {
        word.copy_from_slice(&word_of(seed, index % words).to_le_bytes());
    }
}

/// The first word that is not what [`fill`] wrote.
pub fn wrong_word(page: &[u8], seed: u64) -> Option<usize> {
    wrong_word_again(page, seed, WORDS)
}

/// The first word that is not what [`fill_again`] wrote.
pub fn wrong_word_again(page: &[u8], seed: u64, words: u64) -> Option<usize> {
    page.chunks_exact(8)
        .zip(0u64..)
        .position(|(word, index)| word != word_of(seed, index % words).to_le_bytes())
}

/// The first word that is not zero.
pub fn nonzero_word(page: &[u8]) -> Option<usize> {
    page.chunks_exact(8).position(|word| word != [0; 8])
}

fn word_of(seed: u64, index: u64) -> u64 {
    mix(seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))) | 1
}

/// The finalizer of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Numbers that look random and are the same in every run.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_checked_word_by_word() {
        let mut page = vec![0; SIZE];
        assert_eq!(nonzero_word(&page), None);
        fill(&mut page, 7);
        assert_eq!(wrong_word(&page, 7), None);
        assert_eq!(wrong_word(&page, 8), Some(0));
        page[4095] ^= 1;
        assert_eq!(wrong_word(&page, 7), Some(511));
        fill_again(&mut page, 7, 8);
        assert_eq!(page[..64], page[4032..]);
        assert_eq!(wrong_word_again(&page, 7, 8), None);
        assert_eq!(wrong_word(&page, 7), Some(8));
        assert_ne!(seed(&[1, 2]), seed(&[2, 1]));
    }
}
