//! What is installed on machines: programs, units, settings, manual pages and completions, as a tar
//! file and as a package for Debian and Ubuntu.
//!
//! Programs are together in `/usr/lib/godwit`, where each finds those it starts beside itself; what
//! people type is linked from `/usr/bin`.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};

use crate::{release, root, target};

const PROGRAMS: [&str; 6] = [
    "godwit",
    "godwit-agent",
    "godwit-controller",
    "godwit-shim",
    "godwit-tar",
    "libgodwit_interpose.so",
];
/// Those of them that people and units start.
const TYPED: [&str; 3] = ["godwit", "godwit-agent", "godwit-controller"];
/// What they call: nft for networks and gates, tar for what CRIU packs, CRIU's own libraries come
/// with `deploy/setup.sh` or the distribution.
const DEPENDS: &str = "libc6, libseccomp2, nftables, iproute2, tar";
const DESCRIPTION: &str = "Moves running Linux containers between hosts without stopping them";

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    ensure!(args.is_empty(), "dist takes no arguments");
    release::build()?;
    let version = env!("CARGO_PKG_VERSION");
    let dir = target().join("dist");
    let tree = dir.join(format!("godwit-{version}"));
    if tree.exists() {
        fs::remove_dir_all(&tree).context("can't remove the tree of the last time")?;
    }
    fill(&tree)?;
    let tar = dir.join(format!("godwit-{version}-{}.tar.gz", env::consts::ARCH));
    insist(
        Command::new("tar")
            .args(["--owner=0", "--group=0", "--sort=name", "-czf"])
            .arg(&tar)
            .arg("-C")
            .arg(&dir)
            .arg(tree.file_name().unwrap_or_default()),
    )?;
    println!("{}", tar.display());
    println!("{}", debian(&dir, &tree, version)?.display());
    Ok(())
}

/// Everything at its place below `tree`.
fn fill(tree: &Path) -> anyhow::Result<()> {
    let built = target().join("release");
    let lib = made(tree.join("usr/lib/godwit"))?;
    for program in PROGRAMS {
        copy(&built.join(program), &lib.join(program), 0o755)?;
    }
    let bin = made(tree.join("usr/bin"))?;
    for program in TYPED {
        symlink(format!("../lib/godwit/{program}"), bin.join(program))?;
    }
    let deploy = root().join("deploy");
    for (from, to) in [("etc", "etc/godwit"), ("systemd", "usr/lib/systemd/system")] {
        let to = made(tree.join(to))?;
        for entry in fs::read_dir(deploy.join(from))? {
            let path = entry?.path();
            copy(&path, &to.join(path.file_name().unwrap_or_default()), 0o644)?;
        }
    }
    let doc = made(tree.join("usr/share/doc/godwit"))?;
    for file in ["README.md", "CHANGELOG.md", "LICENSE"] {
        copy(&root().join(file), &doc.join(file), 0o644)?;
    }
    let setup = made(tree.join("usr/share/godwit"))?;
    insist(
        Command::new("cp")
            .arg("-r")
            .arg(deploy.join("setup.sh"))
            .arg(deploy.join("setup"))
            .arg(setup),
    )?;
    manuals(&built, tree)?;
    completions(&built, tree)
}

fn manuals(built: &Path, tree: &Path) -> anyhow::Result<()> {
    let man = tree.join("usr/share/man");
    let first = made(man.join("man1"))?;
    insist(Command::new(built.join("godwit")).arg("manual").arg(&first))?;
    let eighth = made(man.join("man8"))?;
    for daemon in ["godwit-agent", "godwit-controller"] {
        let page = said(Command::new(built.join(daemon)).arg("manual"))?;
        fs::write(eighth.join(format!("{daemon}.8")), page)?;
    }
    for dir in [first, eighth] {
        for page in fs::read_dir(dir)? {
            insist(Command::new("gzip").args(["-9n"]).arg(page?.path()))?;
        }
    }
    Ok(())
}

fn completions(built: &Path, tree: &Path) -> anyhow::Result<()> {
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/godwit"),
        ("zsh", "usr/share/zsh/vendor-completions/_godwit"),
        ("fish", "usr/share/fish/vendor_completions.d/godwit.fish"),
    ] {
        let script = said(Command::new(built.join("godwit")).args(["completion", shell]))?;
        let place = tree.join(place);
        made(place.parent().unwrap_or(tree).into())?;
        fs::write(place, script)?;
    }
    Ok(())
}

/// The package. Its services are not started: they have no credentials yet.
fn debian(dir: &Path, tree: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))
        .context("a .deb is made on Debian or Ubuntu")?;
    let architecture = String::from_utf8(architecture)?.trim().to_owned();
    let staged = dir.join("deb");
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    insist(Command::new("cp").arg("-a").arg(tree).arg(&staged))?;
    let control = made(staged.join("DEBIAN"))?;
    let size = kib(&staged)?;
    fs::write(
        control.join("control"),
        format!(
            "Package: godwit\nVersion: {version}\nArchitecture: {architecture}\n\
             Maintainer: The Godwit authors\nSection: admin\nPriority: optional\n\
             Depends: {DEPENDS}\nRecommends: criu\nInstalled-Size: {size}\n\
             Description: {DESCRIPTION}\n An agent for each host, a controller that agrees through Raft, and\n \
             a command line with Docker's verbs and migrate.\n"
        ),
    )?;
    let settings = "/etc/godwit/agent.toml\n/etc/godwit/controller.toml\n";
    fs::write(control.join("conffiles"), settings)?;
    for (name, script) in [("postinst", POSTINST), ("prerm", PRERM)] {
        let path = control.join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let package = dir.join(format!("godwit_{version}_{architecture}.deb"));
    insist(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(&staged)
            .arg(&package)
            .stdout(Stdio::null()),
    )?;
    fs::remove_dir_all(&staged)?;
    Ok(package)
}

const POSTINST: &str = "#!/bin/sh
set -e
if [ \"$1\" = configure ]; then
    getent group godwit >/dev/null || groupadd --system godwit
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # An upgrade: the daemons change, and containers go on.
        if [ -n \"$2\" ]; then
            systemctl try-restart godwit-controller.service godwit-agent.service
        fi
    fi
fi
";

const PRERM: &str = "#!/bin/sh
set -e
if [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop godwit-agent.service godwit-controller.service
fi
";

fn made(dir: PathBuf) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(&dir).with_context(|| format!("can't make `{}`", dir.display()))?;
    Ok(dir)
}

fn copy(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("can't copy `{}`", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn kib(dir: &Path) -> anyhow::Result<u64> {
    let said = said(Command::new("du").args(["-sk", "--apparent-size"]).arg(dir))?;
    let said = String::from_utf8(said)?;
    let size = said.split_whitespace().next().unwrap_or_default();
    size.parse().with_context(|| format!("`du` said `{said}`"))
}

fn insist(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("can't start `{}`", shown(&name)))?;
    ensure!(status.success(), "`{}` ended with {status}", shown(&name));
    Ok(())
}

fn said(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let name = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("can't start `{}`", shown(&name)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}`: {}", shown(&name), said.trim());
    }
    Ok(output.stdout)
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
