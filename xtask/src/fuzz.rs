//! `cargo xtask fuzz`: random input for everything that reads what an image brings. The targets are
//! tests of the runtime with a corpus beside them, so that they run on the stable toolchain.

use anyhow::bail;

use crate::cargo;

/// Seconds for each target.
const QUICK: u64 = 60;
const LONG: u64 = 900;

/// `--quick`: a minute for each target.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let seconds = match args {
        [] => LONG,
        [only] if only == "--quick" => QUICK,
        _ => bail!("`cargo xtask fuzz [--quick]`"),
    };
    let args = [
        "test",
        "-p",
        "godwit-runtime",
        "--test",
        "fuzz",
        "--",
        "--nocapture",
    ];
    let mut command = cargo::command(&args);
    command.env("GODWIT_FUZZ_SECONDS", seconds.to_string());
    cargo::must_command(command, &args)
}
