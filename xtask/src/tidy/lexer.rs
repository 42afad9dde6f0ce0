//! Rust source with its comments and texts blanked out: what is left is code.
//!
//! No parser: it knows just enough of the lexical rules to tell where code ends.

/// The source with every character of a comment replaced by a space, and every one of a string or
/// a character literal by a quotation mark. Line breaks stay, so that line numbers do.
pub fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_comment(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_comment(&chars, at),
            '"' => string(&chars, at),
            'r' if !continues_word(&chars, at) => raw_string(&chars, at),
            '\'' => character(&chars, at),
            _ => at,
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            let blank = if chars[at] == '/' { ' ' } else { '"' };
            let blanked = chars[at..end].iter();
            code.extend(blanked.map(|&c| if c == '\n' { c } else { blank }));
            at = end;
        }
    }
    code
}

fn continues_word(chars: &[char], at: usize) -> bool {
    // `br"…"` is a raw string too: its `b` is left as code, which harms nobody.
    at > 0 && chars[at - 1] != 'b' && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn line_comment(chars: &[char], at: usize) -> usize {
    let rest = chars[at..].iter().position(|&c| c == '\n');
    rest.map_or(chars.len(), |length| at + length)
}

fn block_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn string(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"…"`, `r#"…"#` and so on; `at` itself when it is none, as in `r#type`.
fn raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let mut next = open + 1;
    while next < chars.len() {
        if chars[next] == '"' {
            let closing = chars[next + 1..].iter().take_while(|&&c| c == '#').count();
            if closing >= hashes {
                return next + 1 + hashes;
            }
        }
        next += 1;
    }
    chars.len()
}

/// A character literal; `at` itself for a lifetime or a label.
fn character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            let rest = chars[at + 3..].iter().position(|&c| c == '\'');
            rest.map_or(chars.len(), |length| at + 3 + length + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<String> {
        let code = code(source).replace('"', " ");
        code.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        assert_eq!(words("a // unsafe\nb /* x /* y */ z */ c"), ["a", "b", "c"]);
        assert_eq!(words(r#"f( "unsafe \" x" ) g"#), ["f(", ")", "g"]);
        assert_eq!(
            words("r\"x\\\" y r#\"a \" b\"# z r#type"),
            ["y", "z", "r#type"]
        );
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        assert_eq!(
            words("fn f<'a>(x: &'a str) '\"' y '\\'' z"),
            ["fn", "f<'a>(x:", "&'a", "str)", "y", "z"]
        );
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n/* x\ny */ b\n\"s\nt\" c\n";
        assert_eq!(code(source).lines().count(), source.lines().count());
        assert_eq!(code(source).lines().nth(4).unwrap(), "\"\" c");
    }

    #[test]
    fn source_that_breaks_off_is_no_reason_to_panic() {
        for source in ["\"", "r#\"", "/*", "'", "'\\", "//", "\"\\"] {
            code(source);
        }
    }
}
