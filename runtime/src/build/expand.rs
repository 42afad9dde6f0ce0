//! Words as Docker's builder reads them: quotes, escapes, `$name`, `${name:-word}`.

use super::{error::Refused, glob};

/// A value may be put into a value, but not for ever.
const MAX_DEPTH: usize = 16;
/// What a word may come to.
const MAX_WORD: usize = 1 << 20;

/// What a pattern is tried on: its cost grows with the square.
const MAX_PATTERNED: usize = 4096;

/// Looks up a variable; None: there is none.
pub type Words<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One word: variables expanded, quotes and escapes taken away.
pub fn expand(word: &str, escape: char, variables: Words<'_>) -> Result<String, Refused> {
    let chars: Vec<char> = word.chars().collect();
    let mut lexer = Lexer {
        chars: &chars,
        at: 0,
        escape,
        variables,
        word,
        depth: 0,
    };
    lexer.until(&[])
}

/// Words of a line as they were written: blanks part them, but not in quotes or after an escape.
pub fn split(line: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
    escape: char,
    variables: Words<'a>,
    /// The whole, for messages.
    word: &'a str,
    depth: usize,
}

impl Lexer<'_> {
    /// Up to one of these, which stays, or the end.
    fn until(&mut self, ends: &[char]) -> Result<String, Refused> {
        let mut out = String::new();
        while let Some(&c) = self.chars.get(self.at) {
            if ends.contains(&c) {
                break;
            }
            self.at += 1;
            match c {
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out)?,
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => match self.chars.get(self.at) {
                    Some(&next) => {
                        self.at += 1;
                        out.push(next);
                    }
                    None => out.push(c),
                },
                c => out.push(c),
            }
            if out.len() > MAX_WORD {
                return Err(Refused::Long("1 MiB once it is expanded"));
            }
        }
        Ok(out)
    }

    fn single(&mut self, out: &mut String) -> Result<(), Refused> {
        while let Some(&c) = self.chars.get(self.at) {
            self.at += 1;
            if c == '\'' {
                return Ok(());
            }
            out.push(c);
        }
        Err(self.fault("a single quote has no end"))
    }

    fn double(&mut self, out: &mut String) -> Result<(), Refused> {
        while let Some(&c) = self.chars.get(self.at) {
            self.at += 1;
            match c {
                '"' => return Ok(()),
                '$' => out.push_str(&self.variable()?),
                c if c == self.escape => {
                    let next = self.chars.get(self.at).copied();
                    match next {
                        Some(next) if next == '"' || next == '$' || next == self.escape => {
                            self.at += 1;
                            out.push(next);
                        }
                        _ => out.push(c),
                    }
                }
                c => out.push(c),
            }
        }
        Err(self.fault("a double quote has no end"))
    }

    /// After the `$`.
    fn variable(&mut self) -> Result<String, Refused> {
        if self.chars.get(self.at) == Some(&'{') {
            self.at += 1;
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.fault("it is nested too deeply"));
            }
            let value = self.braced();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            // A dollar and nothing else.
            return Ok("$".to_owned());
        }
        Ok((self.variables)(&name).unwrap_or_default())
    }

    fn name(&mut self) -> String {
        let is_first = |c: char| c == '_' || c.is_ascii_alphabetic();
        let mut name = String::new();
        match self.chars.get(self.at) {
            // As in a shell, these are one character long.
            Some(&c) if c.is_ascii_digit() || matches!(c, '@' | '*' | '#' | '?' | '-' | '!') => {
                self.at += 1;
                name.push(c);
            }
            Some(&c) if is_first(c) => {
                while let Some(&c) = self.chars.get(self.at)
                    && (is_first(c) || c.is_ascii_digit())
                {
                    self.at += 1;
                    name.push(c);
                }
            }
            _ => {}
        }
        name
    }

    /// After the `${`.
    fn braced(&mut self) -> Result<String, Refused> {
        let name = self.name();
        if name.is_empty() {
            return Err(self.fault("`${` needs a name"));
        }
        let value = (self.variables)(&name);
        let Some(&sign) = self.chars.get(self.at) else {
            return Err(self.fault("`${` has no `}`"));
        };
        self.at += 1;
        if matches!(sign, '#' | '%' | '/')
            && value
                .as_ref()
                .is_some_and(|value| value.len() > MAX_PATTERNED)
        {
            return Err(self.fault("its value is longer than the 4 KiB that patterns take"));
        }
        match sign {
            '}' => Ok(value.unwrap_or_default()),
            ':' | '-' | '+' | '?' => {
                let (sign, empty_counts) = if sign == ':' {
                    let next = self.chars.get(self.at).copied();
                    self.at += 1;
                    (next.unwrap_or('}'), false)
                } else {
                    (sign, true)
                };
                let word = self.until(&['}'])?;
                self.close()?;
                let set = value.filter(|value| empty_counts || !value.is_empty());
                match (sign, set) {
                    ('-', set) => Ok(set.unwrap_or(word)),
                    ('+', Some(_)) => Ok(word),
                    ('+', None) => Ok(String::new()),
                    ('?', Some(value)) => Ok(value),
                    ('?', None) => {
                        let why = if word.is_empty() {
                            "it is not set"
                        } else {
                            &word
                        };
                        Err(Refused::invalid(&name, why))
                    }
                    _ => Err(self.fault("after a `:` comes `-`, `+` or `?`")),
                }
            }
            '#' | '%' => {
                let longest = self.chars.get(self.at) == Some(&sign);
                self.at += usize::from(longest);
                let pattern = self.until(&['}'])?;
                self.close()?;
                let value = value.unwrap_or_default();
                Ok(trimmed(&value, &pattern, sign == '#', longest).to_owned())
            }
            '/' => {
                let all = self.chars.get(self.at) == Some(&'/');
                self.at += usize::from(all);
                let pattern = self.until(&['/', '}'])?;
                let mut by = String::new();
                if self.chars.get(self.at) == Some(&'/') {
                    self.at += 1;
                    by = self.until(&['}'])?;
                }
                self.close()?;
                Ok(replaced(&value.unwrap_or_default(), &pattern, &by, all))
            }
            _ => Err(self.fault("`${` is followed by something unknown")),
        }
    }

    fn close(&mut self) -> Result<(), Refused> {
        if self.chars.get(self.at) == Some(&'}') {
            self.at += 1;
            Ok(())
        } else {
            Err(self.fault("`${` has no `}`"))
        }
    }

    fn fault(&self, problem: &str) -> Refused {
        Refused::invalid(self.word, problem)
    }
}

/// Where the parts of a value may be cut.
fn cuts(value: &str) -> impl DoubleEndedIterator<Item = usize> + '_ {
    (0..=value.len()).filter(|at| value.is_char_boundary(*at))
}

/// `value` without the part that fits, at its beginning or its end.
fn trimmed<'a>(value: &'a str, pattern: &str, front: bool, longest: bool) -> &'a str {
    let fits = |at: &usize| {
        let part = if front { &value[..*at] } else { &value[*at..] };
        glob::fits(pattern.as_bytes(), part.as_bytes())
    };
    // From the beginning, a longer part ends later; from the end, it begins earlier.
    let cut = if front == longest {
        cuts(value).rev().find(fits)
    } else {
        cuts(value).find(fits)
    };
    match cut {
        Some(at) if front => &value[at..],
        Some(at) => &value[..at],
        None => value,
    }
}

fn replaced(value: &str, pattern: &str, by: &str, all: bool) -> String {
    let mut out = String::new();
    let mut rest = value;
    'search: while !pattern.is_empty() && !rest.is_empty() {
        for from in cuts(rest) {
            let longest = cuts(rest)
                .rev()
                .take_while(|to| *to > from)
                .find(|to| glob::fits(pattern.as_bytes(), &rest.as_bytes()[from..*to]));
            if let Some(to) = longest {
                out.push_str(&rest[..from]);
                out.push_str(by);
                rest = &rest[to..];
                if all {
                    continue 'search;
                }
                break 'search;
            }
        }
        break;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "E" => Some(String::new()),
            "P" => Some("usr/local/bin.tar.gz".into()),
            _ => None,
        }
    }

    fn of(word: &str) -> String {
        expand(word, '\\', &look).unwrap()
    }

    #[test]
    fn variables_are_expanded_as_the_reference_says() {
        for (word, value) in [
            ("$A-$A", "one-one"),
            ("${A}b", "oneb"),
            ("$Ab", ""),
            ("${X:-y}", "y"),
            ("${E:-y}", "y"),
            ("${E-y}", ""),
            ("${X-y}", "y"),
            ("${A:-y}", "one"),
            ("${A:+y}", "y"),
            ("${E:+y}", ""),
            ("${E+y}", "y"),
            ("${X:+y}", ""),
            ("${X:-${A:+$A!}}", "one!"),
            ("${A:?x}", "one"),
            ("${P#*/}", "local/bin.tar.gz"),
            ("${P##*/}", "bin.tar.gz"),
            ("${P%.*}", "usr/local/bin.tar"),
            ("${P%%.*}", "usr/local/bin"),
            ("${P/l/L}", "usr/Local/bin.tar.gz"),
            ("${P//a/}", "usr/locl/bin.tr.gz"),
            ("'$A'", "$A"),
            ("\"$A \\\" \\$A\"", "one \" $A"),
            ("\\$A", "$A"),
            ("a\\ b", "a b"),
            ("100$", "100$"),
            ("x'y'\"z\"", "xyz"),
        ] {
            assert_eq!(of(word), value, "{word}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        for word in [
            "'a",
            "\"a",
            "${A",
            "${",
            "${A:-x",
            "${}",
            "${A:x}",
            "${X:?gone}",
        ] {
            assert!(expand(word, '\\', &look).is_err(), "{word}");
        }
        let deep = "${X:-".repeat(100) + &"}".repeat(100);
        assert!(expand(&deep, '\\', &look).is_err());
    }

    #[test]
    fn words_part_at_blanks_outside_of_quotes() {
        assert_eq!(
            split(r#"A=1 B="x y" C='p q' D=a\ b"#, '\\'),
            ["A=1", r#"B="x y""#, "C='p q'", r"D=a\ b"]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_word_is_expanded_or_refused(word in "[${}:\\-+?#%/'\"\\\\ A-C]{0,40}") {
            let _ = expand(&word, '\\', &look);
            let _ = split(&word, '\\');
        }
    }
}
