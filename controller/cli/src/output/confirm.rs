//! Asking before something is removed.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

/// Whether the person says yes. Where nobody can be asked, it takes `--force`.
pub fn confirmed(what: &str) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("standard input is no terminal, so nobody can be asked: give `--force`");
    }
    eprint!("{what}\nAre you sure you want to continue? [y/N] ");
    io::stderr().flush().ok();
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("can't read from the terminal")?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
