//! What CRIU's log says when something failed.

use std::{fs, path::Path};

/// What a log gives as the reason of a failure; `otherwise` where it says nothing.
pub fn reason(path: &Path, otherwise: String) -> String {
    let errors = errors(path);
    if errors.is_empty() { otherwise } else { errors }
}

/// The first error lines of a log, on one line: enough to tell the cause. Empty: none.
fn errors(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Error (").map(|(_, rest)| rest))
        .filter_map(|rest| rest.split_once("): ").map(|(_, message)| message.trim()))
        // On a host without CAP_SYS_RESOURCE every run says this first, and it means nothing.
        .filter(|message| !message.starts_with("rlimit: Can't setup RLIMIT_NOFILE"))
        .take(3)
        .collect();
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_errors_are_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "(00.01) Warn  (criu/x.c:1): odd\n(00.02) Error (criu/tty.c:9): tty: bad\nx\n",
        )
        .unwrap();
        assert_eq!(errors(file.path()), "tty: bad");
        assert_eq!(errors(Path::new("/nonexistent")), "");
    }
}
