//! The form of a source file.

use super::{Finding, lexer};

const WHITE: [char; 3] = [' ', '\t', '\r'];
const MAX_LINES: usize = 700;
/// Names that say nothing of what a file is for.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];

/// What is wrong with this file; `path` is relative to the root.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line: usize, what: String| {
        findings.push(Finding {
            path: path.to_owned(),
            line,
            what,
        });
    };
    let rust = path.ends_with(".rs");
    let code = if rust {
        lexer::code(text)
    } else {
        text.to_owned()
    };
    for ((line, code), number) in text.split('\n').zip(code.split('\n')).zip(1..) {
        // What a string ends a line with is its content.
        if line.ends_with(WHITE) && code.ends_with(WHITE) {
            find(number, "trailing whitespace".into());
        }
    }
    if !rust {
        return findings;
    }
    if !text.starts_with("//!") {
        find(
            1,
            "the file does not begin with `//!`: what it is, and what it is not".into(),
        );
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        find(
            MAX_LINES + 1,
            format!("{lines} lines, {MAX_LINES} at most: split it by role"),
        );
    }
    if let Some(name) = empty_name(path) {
        find(1, format!("`{name}` does not say what it is for"));
    }
    for (line, number) in code.lines().zip(1..) {
        for hole in ["todo", "unimplemented"] {
            if is_macro(line, hole) {
                find(number, format!("`{hole}!`"));
            }
        }
        if has_word(line, "unsafe") && !may_be_unsafe(path) {
            find(number, "`unsafe` outside a `sys` module".into());
        }
    }
    findings
}

fn empty_name(path: &str) -> Option<&str> {
    path.split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part))
        .find(|part| EMPTY_NAMES.contains(part))
}

fn may_be_unsafe(path: &str) -> bool {
    path.starts_with("runtime/interpose/")
        || path.ends_with("/sys.rs")
        || path.split('/').any(|part| part == "sys")
}

fn is_macro(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        is_boundary(line[..at].chars().next_back()) && line[at + name.len()..].starts_with('!')
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        is_boundary(line[..at].chars().next_back())
            && is_boundary(line[at + word.len()..].chars().next())
    })
}

fn is_boundary(next: Option<char>) -> bool {
    next.is_none_or(|c| !c.is_alphanumeric() && c != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(path, text)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn a_tidy_file_has_no_findings() {
        let text = "//! What it is.\n\n// unsafe, todo!\nfn f() { g(\"todo!()\") }\n#![forbid(unsafe_code)]\n";
        assert_eq!(whats("agent/src/a.rs", text), Vec::<String>::new());
    }

    #[test]
    fn every_rule_is_held() {
        let text = "fn f() {\n    todo!()\n}\nfn g() { unsafe { h() } } \n";
        assert_eq!(
            whats("agent/src/utils/a.rs", text),
            [
                "4: trailing whitespace",
                "1: the file does not begin with `//!`: what it is, and what it is not",
                "1: `utils` does not say what it is for",
                "2: `todo!`",
                "4: `unsafe` outside a `sys` module",
            ]
        );
        let long = format!("//! x\n{}", "\n".repeat(700));
        assert_eq!(
            whats("a.rs", &long),
            ["701: 701 lines, 700 at most: split it by role"]
        );
    }

    #[test]
    fn unsafe_has_its_places() {
        let text = "//! x\nunsafe fn f() {}\n";
        for path in [
            "runtime/src/sys.rs",
            "runtime/src/sys/uffd.rs",
            "runtime/interpose/src/lib.rs",
        ] {
            assert!(whats(path, text).is_empty(), "{path}");
        }
        assert_eq!(whats("runtime/src/system.rs", text).len(), 1);
    }

    #[test]
    fn a_string_may_end_a_line_with_a_space_and_other_text_may_not() {
        assert_eq!(
            whats("README.md", "todo! unsafe\t\n"),
            ["1: trailing whitespace"]
        );
    }
}
