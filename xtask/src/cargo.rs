//! Running cargo: the one that runs this, in the workspace's root.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// `cargo ARGS`, not started yet.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(crate::root());
    // What the cargo that runs us says of this package would be news to build scripts, ring's for
    // one, and everything above them would be built anew.
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command
}

/// Runs it and says so; whether it succeeded.
pub fn run(args: &[&str]) -> anyhow::Result<bool> {
    run_command(command(args), args)
}

/// Runs it and says so; an error if it fails.
pub fn must(args: &[&str]) -> anyhow::Result<()> {
    must_command(command(args), args)
}

/// As [`must`], with a command of `args` that has more than these set.
pub fn must_command(command: Command, args: &[&str]) -> anyhow::Result<()> {
    if run_command(command, args)? {
        return Ok(());
    }
    bail!("`cargo {}` failed", args.join(" "))
}

fn run_command(mut command: Command, args: &[&str]) -> anyhow::Result<bool> {
    eprintln!("+ cargo {}", args.join(" "));
    let status = command
        .status()
        .with_context(|| format!("can't run `cargo {}`", args[0]))?;
    Ok(status.success())
}

/// Whether cargo has this subcommand, as one from `cargo install`.
pub fn has(subcommand: &str) -> bool {
    command(&[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
