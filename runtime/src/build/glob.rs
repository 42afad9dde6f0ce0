//! Patterns of one path component, as Go's `filepath.Match` has them: `*`, `?`, `[a-z]`, `\`.

/// Whether it is more than a name.
pub(crate) fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|b| matches!(b, b'*' | b'?' | b'['))
}

/// Whether a name fits a pattern. One that is not valid fits nothing.
pub(crate) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    // The last `*`, and where the name goes on if that takes one more.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
                continue;
            }
            Some(_) => {
                if let Some(next) = one(pattern, p, name[n]) {
                    p = next;
                    n += 1;
                    continue;
                }
            }
            None => {}
        }
        match star {
            Some((after, taken)) => {
                star = Some((after, taken + 1));
                p = after;
                n = taken + 1;
            }
            None => return false,
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|b| *b == b'*')
}

/// Where the pattern goes on if what is at `p` fits this byte.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match pattern[p] {
        b'?' => Some(p + 1),
        b'\\' => (*pattern.get(p + 1)? == byte).then_some(p + 2),
        b'[' => {
            let mut at = p + 1;
            let negated = pattern.get(at) == Some(&b'^');
            at += usize::from(negated);
            let mut fits = false;
            let first = at;
            loop {
                let (low, next) = match *pattern.get(at)? {
                    b']' if at > first => break,
                    b'\\' => (*pattern.get(at + 1)?, at + 2),
                    other => (other, at + 1),
                };
                at = next;
                let mut high = low;
                if pattern.get(at) == Some(&b'-') && pattern.get(at + 1) != Some(&b']') {
                    high = *pattern.get(at + 1)?;
                    at += 2;
                }
                fits |= (low..=high).contains(&byte);
            }
            (fits != negated).then_some(at + 1)
        }
        literal => (literal == byte).then_some(p + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_go_has_them() {
        for (pattern, name, wanted) in [
            ("*.go", "a.go", true),
            ("*.go", "a.c", false),
            ("a*b*c", "aXbYbc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[a-", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*", "", true),
            ("", "", true),
            ("**", "abc", true),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), name.as_bytes()),
                wanted,
                "{pattern} {name}"
            );
        }
    }
}
