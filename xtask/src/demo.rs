//! `cargo xtask demo [--keep | --stop | --rounds N]`: prepares the machine, builds the programs
//! as they would be shipped, and has them play the demo.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{release, setup};

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    let testbed = crate::target().join("release/godwit-testbed");
    // What was started by that program is ended by it, whatever has changed since.
    if !(args == ["--stop"] && testbed.exists()) {
        setup::run("demo", &args)?;
        release::build()?;
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
