//! The keys by which one leaves a container to itself: what is typed is searched for them.

use std::str::FromStr;

/// A sequence, as `ctrl-p,ctrl-q`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no key: give single characters or `ctrl-` with one of a-z, @, [, \\, ], ^ and _, with commas between them"
)]
pub struct KeyError(String);

impl FromStr for DetachKeys {
    type Err = KeyError;

    /// Empty: none, one can't leave.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(key).collect::<Result<_, _>>().map(Self)
    }
}

fn key(text: &str) -> Result<u8, KeyError> {
    let wrong = || KeyError(text.chars().take(40).collect());
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    };
    match text.strip_prefix("ctrl-") {
        Some(rest) => match single(rest).map(|byte| byte.to_ascii_lowercase()) {
            Some(byte @ b'a'..=b'z') => Ok(byte - b'a' + 1),
            Some(b'@') => Ok(0),
            Some(byte @ b'['..=b'_') => Ok(byte - b'@'),
            _ => Err(wrong()),
        },
        None => single(text).ok_or_else(wrong),
    }
}

/// Searches what is typed.
#[derive(Debug)]
pub struct Search {
    keys: DetachKeys,
    /// So many of them were just typed, and are held back.
    matched: usize,
}

impl Search {
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of it is for the container, and whether the sequence is complete.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    self.matched = 0;
                    return (out, true);
                }
                continue;
            }
            // What was held back was meant for the container; the new one may begin the sequence.
            out.extend_from_slice(&keys[..self.matched]);
            self.matched = 0;
            if keys.first() == Some(byte) {
                self.matched = 1;
                if keys.len() == 1 {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_docker_has_them() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-@,a,ctrl-]".parse(), Ok(DetachKeys(vec![0, b'a', 29])));
        assert_eq!("".parse(), Ok(DetachKeys(vec![])));
        for wrong in ["ctrl-", "ctrl-1", "ab", "a,,b", "é"] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_sequence_is_found_wherever_it_is_cut_and_nothing_else_is_lost() {
        let mut search = Search::new(DetachKeys::default());
        assert_eq!(search.feed(b"ls\x10"), (b"ls".to_vec(), false));
        assert_eq!(search.feed(b"x"), (b"\x10x".to_vec(), false));
        assert_eq!(search.feed(b"\x10\x10\x11rest"), (b"\x10".to_vec(), true));
        let mut none = Search::new("".parse().unwrap());
        assert_eq!(none.feed(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }
}
