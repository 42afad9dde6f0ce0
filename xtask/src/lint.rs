//! `cargo xtask lint`: what tools of others can say about the code.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

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
        if !cargo(step)? {
            failed.push(step[0]);
        }
    }
    if !deny_is_installed() {
        eprintln!("skipped: cargo-deny is not installed (`cargo install cargo-deny`)");
    } else if !cargo(DENY)? {
        failed.push(DENY[0]);
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("lint failed: {}", failed.join(", "))
    }
}

fn cargo(args: &[&str]) -> anyhow::Result<bool> {
    eprintln!("+ cargo {}", args.join(" "));
    let status = command(args)
        .status()
        .with_context(|| format!("can't run `cargo {}`", args[0]))?;
    Ok(status.success())
}

fn deny_is_installed() -> bool {
    command(&["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(crate::root());
    command
}
