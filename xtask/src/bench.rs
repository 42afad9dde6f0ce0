//! `cargo xtask bench`: prepares the machine, builds for release and measures.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{packages, release, setup};

const USAGE: &str = "usage: cargo xtask bench migrate [--quick] [--moves N] [--only PART]";
/// What Godwit is compared with.
const OTHERS: &[&str] = &["podman", "runc", "conmon"];

/// Arguments after `migrate` are the bench's own.
pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    if args.first().map(String::as_str) != Some("migrate") {
        bail!("{USAGE}");
    }
    setup::run("bench", &args)?;
    packages::install(OTHERS)?;
    release::build()?;
    let testbed = crate::target().join("release/godwit-testbed");
    let status = Command::new(&testbed)
        .arg("bench")
        .args(args)
        .status()
        .with_context(|| format!("can't run `{}`", testbed.display()))?;
    if !status.success() {
        bail!("the benchmark failed");
    }
    Ok(())
}
