//! What has to be on the machine before hosts can be made on it: root, and `deploy/setup.sh`.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Prepares the machine; seconds, and silent, when it is prepared.
pub fn run(task: &str, args: &[String]) -> anyhow::Result<()> {
    need_root(task, args)?;
    let script = crate::root().join("deploy/setup.sh");
    let status = Command::new(&script)
        // Its summary; what it has to do goes to standard error.
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("can't run `{}`", script.display()))?;
    if !status.success() {
        bail!("`deploy/setup.sh` failed");
    }
    Ok(())
}

fn need_root(task: &str, args: &[String]) -> anyhow::Result<()> {
    // The owner of a process's directory is its effective user.
    if fs::metadata("/proc/self").context("`/proc/self`")?.uid() == 0 {
        return Ok(());
    }
    let mut line = format!("cargo xtask {task}");
    for arg in args {
        line.push(' ');
        line.push_str(arg);
    }
    // sudo's own PATH seldom has cargo in it.
    let path = env::var("PATH").unwrap_or_default();
    bail!(
        "`{task}` needs root, since its hosts are network and mount namespaces, cgroups and CRIU\n\
         hint: sudo env PATH={path} {line}"
    )
}
