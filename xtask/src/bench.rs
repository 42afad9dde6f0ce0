//! `cargo xtask bench`: prepares the machine, builds for release and measures.

use std::process::Command;

use anyhow::bail;

use crate::release;

const USAGE: &str = "usage: cargo xtask bench migrate [--quick] [--moves N] [--only PART]";
/// What Godwit is compared with.
const OTHERS: &[&str] = &["podman", "runc", "conmon"];

/// Arguments after `migrate` are the bench's own.
pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    if args.first().map(String::as_str) != Some("migrate") {
        bail!("{USAGE}");
    }
    release::setup()?;
    release::packages(OTHERS)?;
    let programs = release::build()?;
    release::insist(
        Command::new(programs.join("godwit-testbed"))
            .arg("bench")
            .args(args),
    )
}
