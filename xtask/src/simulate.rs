//! `cargo xtask simulate [--seeds N] [--from SEED] [--seed S [--trace]]`: whole clusters in virtual
//! time, until one breaks a rule. See `docs/simulation.md`.

use crate::cargo;

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    // Not for release: it is optimized all the same, and the state machine checks itself.
    let mut line = vec!["run", "--quiet", "--package=godwit-sim", "--"];
    line.extend(args.iter().map(String::as_str));
    cargo::must(&line)
}
