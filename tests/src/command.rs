//! Running a program to its end and insisting on its success.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A program and its arguments, from one line of words.
pub fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Runs it; its output when it exits with 0, an error that says all when not.
pub fn run(mut command: Command) -> Result<String> {
    let output = output(&mut command)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {} {}",
            output.status,
            text(&output.stderr),
            text(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs one line of words.
pub fn sh(line: &str) -> Result<String> {
    run(command(line))
}

/// Runs it, whatever its exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?} can't be started"))
}
