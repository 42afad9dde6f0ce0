//! Packages of the distribution that only one task needs.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Installs those that are missing.
pub fn install(names: &[&str]) -> anyhow::Result<()> {
    let missing: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    insist(Command::new("apt-get").args(["-qq", "update"]))?;
    let install = ["-qq", "install", "-y", "--no-install-recommends"];
    insist(
        Command::new("apt-get")
            .args(install)
            .args(["-o", "DPkg::Lock::Timeout=600"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null()),
    )
}

fn is_installed(name: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", name])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn insist(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start `{}`", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` ended with {status}", command.get_program().display());
    }
    Ok(())
}
