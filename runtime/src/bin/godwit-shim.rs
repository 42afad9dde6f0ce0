//! `godwit-shim CONFIG`: one per container, started by the agent. See `godwit_runtime::shim`.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("GODWIT_SHIM_LOG")
                // It warns of every controller that a kernel lacks, at every start.
                .unwrap_or_else(|_| "warn,libcgroups=error".into()),
        )
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let Some(config) = std::env::args_os().nth(1) else {
        eprintln!("usage: godwit-shim CONFIG");
        return ExitCode::from(2);
    };
    match godwit_runtime::shim::run(Path::new(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "shim can't start");
            ExitCode::FAILURE
        }
    }
}
