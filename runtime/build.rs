//! Builds the reaper of `--init`: a static program, which cargo alone can't link beside dynamic ones.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=init");
    let set = |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let output = PathBuf::from(set("OUT_DIR")).join("godwit-init");
    let status = Command::new(set("RUSTC"))
        .args(["--edition", "2024", "--crate-name", "godwit_init"])
        .args([
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
        ])
        .args([
            "-C",
            "target-feature=+crt-static",
            "-C",
            "relocation-model=static",
        ])
        .args(["--target", &set("TARGET"), "-o"])
        .arg(&output)
        .arg("init/main.rs")
        .status();
    match status {
        Ok(status) if status.success() => {}
        other => panic!("the reaper was not built: {other:?}"),
    }
}
