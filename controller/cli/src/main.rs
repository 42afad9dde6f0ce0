//! `godwit`: Docker's verbs for a whole cluster, and `migrate`.
//!
//! Reads the arguments, runs one command and chooses the exit code. Data goes to standard output,
//! everything else to standard error.

mod commands;
#[cfg(test)]
mod compat;
mod options;
mod output;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use godwit_cli::exit_code;
use godwit_proto::tls;

use crate::{options::Options, output::failure};

fn main() -> ExitCode {
    tls::install_crypto();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(refused(&error));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            failure::report(&anyhow::Error::new(error).context("can't start"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(commands::run(options)) {
        Ok(code) => code,
        Err(error) => failure::exit_code(&error),
    };
    // A read of standard input that nobody waits for any more must not keep the program.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// What arguments that can't be used end with: for `run` as for a container that was not started.
fn refused(error: &clap::Error) -> u8 {
    let starts = std::env::args()
        .skip(1)
        .any(|argument| matches!(argument.as_str(), "run" | "create"));
    match error.exit_code() {
        0 => 0,
        _ if starts => exit_code::NOT_STARTED,
        other => u8::try_from(other).unwrap_or(2),
    }
}
