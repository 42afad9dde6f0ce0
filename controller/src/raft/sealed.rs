//! A checksum before every stored value: redb's own are looked at only after a crash.

const SUM: usize = 8;

fn sum(value: &[u8]) -> [u8; SUM] {
    let hash = blake3::hash(value);
    let mut sum = [0; SUM];
    sum.copy_from_slice(&hash.as_bytes()[..SUM]);
    sum
}

/// The value as it is stored.
pub fn seal(value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SUM + value.len());
    sealed.extend(sum(value));
    sealed.extend(value);
    sealed
}

/// The value that was stored; None: it is another one now.
pub fn open_seal(sealed: &[u8]) -> Option<&[u8]> {
    let (before, value) = sealed.split_at_checked(SUM)?;
    (before == sum(value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_enough_to_be_refused() {
        let sealed = seal(b"entry");
        assert_eq!(open_seal(&sealed), Some(b"entry".as_slice()));
        for bit in 0..sealed.len() * 8 {
            let mut other = sealed.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open_seal(&other), None, "bit {bit}");
        }
        assert_eq!(open_seal(&sealed[..4]), None);
        assert_eq!(open_seal(&sealed[..10]), None);
    }
}
