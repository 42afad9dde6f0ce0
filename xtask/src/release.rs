//! What tasks need before they start programs of this workspace: the machine prepared, and
//! everything built for release.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Runs `deploy/setup.sh`, which only checks what is right already.
pub fn setup() -> anyhow::Result<()> {
    let script = crate::root().join("deploy/setup.sh");
    insist(Command::new("bash").arg(script).stdout(Stdio::null()))
}

/// Packages of the distribution, if one is missing.
pub fn packages(names: &[&str]) -> anyhow::Result<()> {
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

/// Builds every program; answers where they are.
pub fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--workspace"])
        .current_dir(crate::root());
    // What the cargo that runs us says of this package would be news to build scripts, ring's for
    // one, and everything above them would be built anew.
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&key);
        }
    }
    insist(&mut cargo)?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(crate::root().join(target).join("release"))
}

/// Runs it, and fails if it does.
pub fn insist(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't start `{}`", command.get_program().display()))?;
    if !status.success() {
        bail!("`{}` ended with {status}", command.get_program().display());
    }
    Ok(())
}
