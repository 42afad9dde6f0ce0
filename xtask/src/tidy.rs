//! `cargo xtask tidy`: the rules of this workspace that no other tool knows.
//!
//! `edges` holds who may import whom, `source` the form of a file, `lexer` tells code from
//! comments and text. Each finding is one line, `path:line: what`.

mod edges;
mod files;
mod lexer;
mod source;

use std::{env, fmt, process::Command};

use anyhow::{Context, bail};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the root.
    pub path: String,
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    if !args.is_empty() {
        bail!("`tidy` takes no arguments");
    }
    let root = crate::root();
    let mut findings = edges::check(&root, &metadata()?)?;
    for file in files::read(&root)? {
        findings.extend(source::check(&file.path, &file.text));
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 finding"),
        count => bail!("{count} findings"),
    }
}

fn metadata() -> anyhow::Result<serde_json::Value> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(crate::root())
        .output()
        .context("can't run `cargo metadata`")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("`cargo metadata` failed: {}", text.trim());
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` answered no JSON")
}
