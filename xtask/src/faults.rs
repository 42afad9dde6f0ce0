//! `cargo xtask faults`: prepares the machine, builds for release, and breaks everything once at
//! every point of a migration.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{release, setup};

/// Arguments are the matrix's own.
pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    setup::run("faults", &args)?;
    release::build()?;
    let testbed = crate::target().join("release/godwit-testbed");
    let status = Command::new(&testbed)
        .arg("faults")
        .args(args)
        .status()
        .with_context(|| format!("can't run `{}`", testbed.display()))?;
    if !status.success() {
        bail!("something did not hold");
    }
    Ok(())
}
