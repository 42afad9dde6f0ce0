//! The programs as they would be shipped, for tasks that start them.

use crate::cargo;

/// Everything that runs in the demo and in the benchmarks.
const BUILD: &[&str] = &[
    "build",
    "--release",
    "--package=godwit-cli",
    "--package=godwit-agent",
    "--package=godwit-controller",
    "--package=godwit-runtime",
    "--package=godwit-interpose",
    "--package=godwit-tests",
    "--bins",
    "--lib",
];

/// Builds them; they are in `target/release`.
pub fn build() -> anyhow::Result<()> {
    cargo::must(BUILD)
}
