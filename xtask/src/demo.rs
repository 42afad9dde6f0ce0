//! `cargo xtask demo [--keep | --stop | --rounds N]`: prepares the machine, builds the programs
//! as they would be shipped, and has them play the demo.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{cargo, setup};

/// Everything that runs in the demo.
const BUILD: &[&str] = &[
    "build",
    "--release",
    "--package=godwit-cli",
    "--package=godwit-agent",
    "--package=godwit-controller",
    "--package=godwit-runtime",
    "--package=godwit-interpose",
    "--package=godwit-tests",
    "--bins",
    "--lib",
];

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    let testbed = crate::target().join("release/godwit-testbed");
    // What was started by that program is ended by it, whatever has changed since.
    if !(args == ["--stop"] && testbed.exists()) {
        setup::run("demo", &args)?;
        cargo::must(BUILD)?;
    }
    let status = Command::new(&testbed)
        .arg("demo")
        .args(args)
        .status()
        .with_context(|| format!("can't run `{}`", testbed.display()))?;
    if !status.success() {
        bail!("the demo failed");
    }
    Ok(())
}
