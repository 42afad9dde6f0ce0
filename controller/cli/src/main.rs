//! `godwit`: Docker's verbs for a whole cluster, and `migrate`.
//!
//! Reads the arguments, runs one command and chooses the exit code. Data goes to standard output,
//! everything else to standard error.

mod commands;
mod options;
mod output;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use godwit_proto::tls;

use crate::{options::Options, output::failure};

fn main() -> ExitCode {
    tls::install_crypto();
    let options = Options::parse();
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
