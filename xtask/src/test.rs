//! `cargo xtask test [FILTER…]`: prepares the machine, builds every program, since the tests of
//! whole clusters start them, and runs every test.

use crate::{cargo, setup};

/// Where a test that lacks something on this machine looks: set, it fails and does not skip.
const REQUIRE: &str = "GODWIT_REQUIRE_ROOT_TESTS";

pub fn run(args: Vec<String>) -> anyhow::Result<()> {
    setup::run("test", &args)?;
    cargo::must(&["build", "--workspace", "--all-targets"])?;
    let mut line = if cargo::has("nextest") {
        vec!["nextest", "run", "--workspace"]
    } else {
        eprintln!("cargo-nextest is not installed: `cargo test` runs the tests, one after another");
        vec!["test", "--workspace"]
    };
    line.extend(args.iter().map(String::as_str));
    let mut command = cargo::command(&line);
    command.env(REQUIRE, "1");
    cargo::must_command(command, &line)
}
