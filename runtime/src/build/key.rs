//! What the result of a step depends on, as a digest. The key of a stage goes from instruction to
//! instruction: the same instructions above the same image have the same key, on any host.

use sha2::{Digest as _, Sha256};

/// Bumped whenever what a step makes of the same input changes.
const FORMAT: &str = "godwit-build-1";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// Of a stage that begins with this.
    pub fn begin(base: &str) -> Self {
        Self::of(&[FORMAT.as_bytes(), base.as_bytes()])
    }

    /// After a step that these make.
    pub fn then(&self, parts: &[&[u8]]) -> Self {
        let mut all = vec![self.0.as_slice()];
        all.extend(parts);
        Self::of(&all)
    }

    /// Each part with its length, so that two lists of parts are never the same bytes.
    fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_parts_do() {
        let key = Key::begin("x");
        assert_ne!(key.then(&[b"ab", b"c"]), key.then(&[b"a", b"bc"]));
        assert_ne!(key.then(&[b"a"]), key.then(&[b"a", b""]));
        assert_eq!(key.then(&[b"a"]), Key::begin("x").then(&[b"a"]));
    }
}
