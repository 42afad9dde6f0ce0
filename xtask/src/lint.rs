//! `cargo xtask lint`: what tools of others can say about the code.

use anyhow::bail;

use crate::cargo;

const STEPS: &[&[&str]] = &[
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ],
];
/// Licences, advisories, banned crates and sources, by `deny.toml`.
const DENY: &[&str] = &["deny", "check"];

/// Runs every step, also after one that failed, and fails if one did.
pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    if !args.is_empty() {
        bail!("`lint` takes no arguments");
    }
    let mut failed = Vec::new();
    for step in STEPS {
        if !cargo::run(step)? {
            failed.push(step[0]);
        }
    }
    if !cargo::has(DENY[0]) {
        eprintln!("skipped: cargo-deny is not installed (`cargo install cargo-deny`)");
    } else if !cargo::run(DENY)? {
        failed.push(DENY[0]);
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("lint failed: {}", failed.join(", "))
    }
}
