//! Rules for the kernel, by the program `nft`: all of them or none.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::error::{NetworkError, Result};

/// `what`: whose rules they are, for messages.
pub fn apply(what: &str, rules: &str) -> Result<()> {
    let refused = |said: String| NetworkError::Rules {
        what: what.to_owned(),
        said,
    };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // An error: it has ended, and its exit code says why.
        let _ = stdin.write_all(rules.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| refused(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(
        said.lines().next().unwrap_or("no reason given").to_owned(),
    ))
}
