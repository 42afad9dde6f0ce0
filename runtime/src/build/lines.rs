//! From a Dockerfile's text to its logical lines: directives, comments, continued lines, heredocs.

use super::{
    error::{BuildFault, Refused},
    instruction::Heredoc,
};

/// What a whole Dockerfile may have.
pub(super) const MAX_TEXT: usize = 2 << 20;
/// Heredocs of one instruction.
const MAX_HEREDOCS: usize = 64;

/// An instruction with all its lines in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub number: u32,
    pub text: String,
    pub heredocs: Vec<Heredoc>,
}

/// The lines, and the character that escapes.
pub(super) fn lines(file: &str, text: &str) -> Result<(Vec<Line>, char), BuildFault> {
    if text.len() > MAX_TEXT {
        return Err(Refused::Long("2 MiB").at(file, 1));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
        .collect();
    let escape = escape(file, &physical)?;
    let mut reader = Reader {
        file,
        physical: &physical,
        at: 0,
        escape,
    };
    let mut lines = Vec::new();
    while let Some(line) = reader.logical()? {
        lines.push(line);
    }
    Ok((lines, escape))
}

/// Directives are the comments at the very top that have the form `# key=value`.
fn escape(file: &str, physical: &[&str]) -> Result<char, BuildFault> {
    let mut seen = Vec::new();
    let mut escape = '\\';
    for (number, line) in physical.iter().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else {
            break;
        };
        let Some((key, value)) = comment.split_once('=') else {
            break;
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if !key.bytes().all(|b| b.is_ascii_alphanumeric()) || seen.contains(&key) {
            break;
        }
        if key == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let shown = other.chars().take(20).collect();
                    return Err(Refused::Escape(shown).at(file, number as u32 + 1));
                }
            };
        }
        seen.push(key);
    }
    Ok(escape)
}

struct Reader<'a> {
    file: &'a str,
    physical: &'a [&'a str],
    at: usize,
    escape: char,
}

impl Reader<'_> {
    fn logical(&mut self) -> Result<Option<Line>, BuildFault> {
        // Between instructions.
        let is_nothing = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#')
        };
        while self
            .physical
            .get(self.at)
            .is_some_and(|line| is_nothing(line))
        {
            self.at += 1;
        }
        let number = self.at as u32 + 1;
        let Some(first) = self.physical.get(self.at) else {
            return Ok(None);
        };
        self.at += 1;
        let mut text = String::new();
        let mut goes_on = self.append(&mut text, first.trim_start());
        while goes_on && let Some(next) = self.physical.get(self.at) {
            self.at += 1;
            // Inside an instruction, comments and empty lines are as if they were not there.
            if is_nothing(next) {
                continue;
            }
            goes_on = self.append(&mut text, next);
        }
        let text = text.trim_end().to_owned();
        let heredocs = self.heredocs(&text, number)?;
        Ok(Some(Line {
            number,
            text,
            heredocs,
        }))
    }

    /// Adds a line without what continues it; whether something does.
    fn append(&self, text: &mut String, line: &str) -> bool {
        let trimmed = line.trim_end_matches([' ', '\t']);
        let Some(rest) = trimmed.strip_suffix(self.escape) else {
            text.push_str(line);
            return false;
        };
        // An escaped escape is one character, and no continuation.
        if rest.ends_with(self.escape) {
            text.push_str(line);
            return false;
        }
        text.push_str(rest);
        true
    }

    fn heredocs(&mut self, text: &str, number: u32) -> Result<Vec<Heredoc>, BuildFault> {
        let mut words = text.split_whitespace();
        let mut keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        if keyword == "ONBUILD" {
            keyword = words.next().unwrap_or_default().to_ascii_uppercase();
        }
        if !matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (name, expand, chomp) in starts(text) {
            if found.len() >= MAX_HEREDOCS {
                return Err(Refused::Long("64 heredocs").at(self.file, number));
            }
            let mut content = String::new();
            loop {
                let Some(line) = self.physical.get(self.at) else {
                    return Err(Refused::Heredoc(name).at(self.file, number));
                };
                self.at += 1;
                let line = if chomp {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if line == name {
                    break;
                }
                content.push_str(line);
                content.push('\n');
            }
            found.push(Heredoc {
                name,
                expand,
                text: content,
                chomp,
            });
        }
        Ok(found)
    }
}

/// Whether this word begins a heredoc: `<<NAME`, `<<-NAME`, `3<<"NAME"`. Its name, whether it is
/// expanded, whether its tabs go.
pub(super) fn start(word: &str) -> Option<(String, bool, bool)> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = word.strip_prefix("<<")?;
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let quoted = |quote: char| {
        rest.strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    };
    let (name, expand) = match quoted('"').or_else(|| quoted('\'')) {
        Some(name) => (name, false),
        None => (rest, true),
    };
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    // `<<<` is the shell's own matter, as is anything with more to it.
    // It is a file's name where it is copied: `..` is none.
    let is_name = name.chars().any(char::is_alphanumeric) && name.chars().all(fits);
    is_name.then(|| (name.to_owned(), expand, chomp))
}

fn starts(text: &str) -> Vec<(String, bool, bool)> {
    // In quotes it is text.
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) => {
                word.push(c);
                if c == open {
                    quote = None;
                }
            }
            (None, '\'' | '"') => {
                word.push(c);
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            // A shell's own signs end a word.
            (None, ';' | '|' | '&' | ')' | '>') => words.push(std::mem::take(&mut word)),
            (None, c) => word.push(c),
        }
    }
    words.push(word);
    words.iter().filter_map(|word| start(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Line> {
        lines("Dockerfile", text).unwrap().0
    }

    #[test]
    fn continued_lines_join_without_comments_between() {
        let found =
            read("# a comment\n\nFROM x\n  RUN a \\\n   # not this\n\n  b \\  \n c\nUSER d");
        let texts: Vec<_> = found
            .iter()
            .map(|line| (line.number, line.text.as_str()))
            .collect();
        assert_eq!(texts, [(3, "FROM x"), (4, "RUN a   b  c"), (9, "USER d")]);
    }

    #[test]
    fn the_escape_directive_counts_at_the_top_only() {
        let (found, escape) = lines("f", "# syntax=x\n# escape=`\nRUN a `\nb\nRUN c\\\n").unwrap();
        assert_eq!(escape, '`');
        assert_eq!(found[0].text, "RUN a b");
        assert_eq!(found[1].text, "RUN c\\");
        assert_eq!(lines("f", "\n# escape=`\nFROM x").unwrap().1, '\\');
        assert_eq!(lines("f", "# a\n# escape=`\nFROM x").unwrap().1, '\\');
        let error = lines("f", "# escape=/\n").unwrap_err();
        assert!(error.to_string().starts_with("f:1: the escape"), "{error}");
    }

    #[test]
    fn heredocs_are_taken_with_their_names() {
        let found =
            read("RUN <<-EOF cat <<'B' > x\n\ta\n\tEOF\nb$c\nB\nCOPY <<f /f\nt\nf\nUSER <<x");
        assert_eq!(found.len(), 3);
        let [a, b] = &found[0].heredocs[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (a.name.as_str(), a.text.as_str(), a.expand, a.chomp),
            ("EOF", "a\n", true, true)
        );
        assert_eq!(
            (b.name.as_str(), b.text.as_str(), b.expand),
            ("B", "b$c\n", false)
        );
        assert_eq!(found[1].heredocs[0].name, "f");
        assert!(found[2].heredocs.is_empty());
        let error = lines("f", "FROM x\nRUN <<E\nabc").unwrap_err();
        assert_eq!(error.to_string(), "f:2: heredoc `E` has no end");
        assert!(read("COPY <<.. /x")[0].heredocs.is_empty());
        assert!(
            read("RUN cat <<< x\nRUN echo '<<E'")
                .iter()
                .all(|line| line.heredocs.is_empty())
        );
    }
}
