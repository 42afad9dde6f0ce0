//! Values that can be checked: which key they belong to, which of its values it is, and noise that
//! follows from both.

use super::protocol::Reply;

const NOISE: usize = 1 << 20;
const SMALLEST: u64 = 100;
const LARGEST: u64 = 1000;
/// The key and the number of a value, before its noise.
const HEAD: usize = 16;

pub struct Values {
    noise: Vec<u8>,
}

/// Splitmix64.
pub fn next(state: u64) -> u64 {
    let mut mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Values {
    pub fn new() -> Self {
        let mut noise = Vec::with_capacity(NOISE + LARGEST as usize);
        let mut word = 0;
        while noise.len() < NOISE + LARGEST as usize {
            word = next(word);
            noise.extend_from_slice(&word.to_le_bytes());
        }
        Self { noise }
    }

    /// A value of a key.
    pub fn of(&self, key: u64, number: u64) -> Vec<u8> {
        let mut value = Vec::with_capacity(LARGEST as usize);
        value.extend_from_slice(&key.to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(self.noise(key, number));
        value
    }

    /// Whether a reply is any value of this key.
    pub fn fit(&self, key: u64, reply: &Reply) -> bool {
        let Reply::Value(value) = reply else {
            return false;
        };
        let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        match (word(0), word(8)) {
            (Some(told), Some(number)) => told == key && value[HEAD..] == *self.noise(key, number),
            _ => false,
        }
    }

    fn noise(&self, key: u64, number: u64) -> &[u8] {
        let mixed = next(key ^ number.rotate_left(32));
        let length = SMALLEST + (mixed >> 32) % (LARGEST - SMALLEST + 1);
        let start = mixed as usize % NOISE;
        &self.noise[start..start + length as usize - HEAD]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_value_of_its_own_key_fits() {
        let values = Values::new();
        for number in [0, 1, u64::MAX] {
            let value = values.of(7, number);
            assert!((100..=1000).contains(&value.len()));
            assert!(values.fit(7, &Reply::Value(value.clone())));
            assert!(!values.fit(8, &Reply::Value(value.clone())));
            assert!(!values.fit(7, &Reply::Value(value[..value.len() - 1].to_vec())));
            let mut changed = value;
            *changed.last_mut().unwrap() ^= 1;
            assert!(!values.fit(7, &Reply::Value(changed)));
        }
        assert!(!values.fit(7, &Reply::Other("$-1".into())));
        assert!(!values.fit(7, &Reply::Value(vec![7])));
    }
}
