//! `.dockerignore`: which files of a directory are no part of a build's context.
//!
//! One pattern a line, matched against paths below the directory: `*`, `?` and `[a-z]` in one
//! part, `**` over any number of parts, `!` takes back what a line before it left out, the last
//! line that fits decides. What fits a directory fits all that is in it.

/// The longest `.dockerignore` that is read, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// The patterns of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    parts: Vec<String>,
    takes_back: bool,
}

/// Why the rules can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("line {line}: `!` needs a pattern")]
    Empty { line: usize },
    #[error("line {line}: `{pattern}` is no pattern: a `[` has no `]`, or a `\\` nothing after it")]
    Pattern { line: usize, pattern: String },
    #[error("it is longer than 1 MiB")]
    Long,
}

impl IgnoreRules {
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        if text.len() > MAX_TEXT {
            return Err(IgnoreError::Long);
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (pattern, takes_back) = match line.strip_prefix('!') {
                Some(rest) => (rest.trim(), true),
                None => (line, false),
            };
            if pattern.is_empty() {
                return Err(IgnoreError::Empty { line: number + 1 });
            }
            let parts = parts(pattern);
            if parts.iter().any(|part| !is_valid(part.as_bytes())) {
                return Err(IgnoreError::Pattern {
                    line: number + 1,
                    pattern: pattern.chars().take(200).collect(),
                });
            }
            // `.` and `/`: the directory itself, which is always there.
            if !parts.is_empty() {
                rules.push(Rule { parts, takes_back });
            }
        }
        Ok(Self { rules })
    }

    /// Whether a path, relative and with `/` between its parts, is left out.
    pub fn ignores(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for rule in &self.rules {
            if rule.takes_back == ignored && rule.fits(&path) {
                ignored = !rule.takes_back;
            }
        }
        ignored
    }

    /// Whether something below a directory that is left out may still be taken back.
    pub fn may_take_back_below(&self, directory: &str) -> bool {
        let path: Vec<&str> = directory.split('/').collect();
        self.rules
            .iter()
            .any(|rule| rule.takes_back && rule.may_reach(&path))
    }
}

impl Rule {
    /// The path or a directory above it.
    fn fits(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|length| whole(&self.parts, &path[..length]))
    }

    /// Something below the path may fit.
    fn may_reach(&self, path: &[&str]) -> bool {
        for (at, part) in self.parts.iter().enumerate() {
            if part == "**" || at >= path.len() {
                return true;
            }
            if !one(part.as_bytes(), path[at].as_bytes()) {
                return false;
            }
        }
        // What is above it fits, and so does all below.
        true
    }
}

fn parts(pattern: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            // Two are as good as one, and cost less.
            "**" if parts.last().is_some_and(|last| last == "**") => {}
            part => parts.push(part.to_owned()),
        }
    }
    parts
}

/// Whether parts fit a whole path. Row by row, so that no pattern takes long.
fn whole(pattern: &[String], path: &[&str]) -> bool {
    // reach[n]: the parts so far fit the first n of the path.
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for part in pattern {
        if part == "**" {
            let first = reach.iter().position(|fits| *fits);
            let Some(first) = first else { return false };
            reach[first..].fill(true);
            continue;
        }
        for n in (0..path.len()).rev() {
            reach[n + 1] = reach[n] && one(part.as_bytes(), path[n].as_bytes());
        }
        reach[0] = false;
    }
    // `a/**` is what is below `a`, not `a`: but then the directory itself is of no use.
    reach[path.len()]
}

/// Whether one part fits one name: `*`, `?`, `[a-z]`, `\`.
fn one(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if let Some(next) = byte(pattern, p, name[n]) {
            p = next;
            n += 1;
            continue;
        }
        let Some((after, taken)) = star else {
            return false;
        };
        star = Some((after, taken + 1));
        p = after;
        n = taken + 1;
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Where the pattern goes on if what is at `p` fits this byte.
fn byte(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' => (*pattern.get(p + 1)? == byte).then_some(p + 2),
        b'[' => {
            let negated = pattern.get(p + 1) == Some(&b'^');
            let first = p + 1 + usize::from(negated);
            let (mut at, mut fits) = (first, false);
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

fn is_valid(pattern: &[u8]) -> bool {
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            b'\\' if at + 1 == pattern.len() => return false,
            b'\\' => at += 2,
            b'[' => {
                let rest = &pattern[at + 1..];
                let from = usize::from(rest.first() == Some(&b'^')) + 1;
                match rest.iter().skip(from).position(|b| *b == b']') {
                    Some(end) => at += from + end + 2,
                    None => return false,
                }
            }
            _ => at += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, ignored: &[&str], kept: &[&str]) {
        let rules = IgnoreRules::parse(text).unwrap();
        for path in ignored {
            assert!(rules.ignores(path), "{text:?} keeps {path}");
        }
        for path in kept {
            assert!(!rules.ignores(path), "{text:?} leaves out {path}");
        }
    }

    #[test]
    fn patterns_fit_as_docker_has_them() {
        check(
            "# x\n\n*.md\n!README.md",
            &["a.md"],
            &["README.md", "d/a.md", "# x"],
        );
        check(
            "*/temp*",
            &["a/temp", "a/temporary/x"],
            &["temp", "a/b/temp"],
        );
        check("**/*.o", &["a.o", "x/y/a.o"], &["a.c"]);
        check("/foo/bar/../baz/", &["foo/baz", "foo/baz/x"], &["foo/bar"]);
        check("a/**/b", &["a/b", "a/x/y/b", "a/b/c"], &["b", "x/a/b"]);
        check(
            "docs\n!docs/keep\ndocs/keep/not",
            &["docs/a", "docs/keep/not"],
            &["docs/keep/b"],
        );
        check("temp?", &["tempa"], &["temp", "tempab"]);
        check("[a-c]", &["b"], &["d"]);
        check("*\n!a", &["b"], &["a", "a/b"]);
        check(".", &[], &["a"]);
    }

    #[test]
    fn a_directory_is_walked_when_something_in_it_may_come_back() {
        let rules = IgnoreRules::parse("*\n!a/b/c\n!**/x.rs").unwrap();
        assert!(rules.may_take_back_below("a/b") && rules.may_take_back_below("z"));
        let rules = IgnoreRules::parse("*\n!a/b/c").unwrap();
        assert!(rules.may_take_back_below("a") && !rules.may_take_back_below("z"));
        assert!(!rules.may_take_back_below("a/d"));
    }

    #[test]
    fn bad_patterns_are_refused_with_their_line() {
        let empty = IgnoreRules::parse("a\n!").unwrap_err();
        assert_eq!(empty, IgnoreError::Empty { line: 2 });
        assert!(IgnoreRules::parse("a[b").is_err() && IgnoreRules::parse("a\\").is_err());
    }

    #[test]
    fn no_pattern_takes_long() {
        let text = "**/a*a*a*a*a*a*a*a*b/".repeat(40);
        let rules = IgnoreRules::parse(&text).unwrap();
        assert!(!rules.ignores(&"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/".repeat(100)));
    }
}
