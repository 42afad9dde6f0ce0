//! `godwit-shim CONFIG`: one per container, started by the agent. See `godwit_runtime::shim`.
//!
//! `godwit-shim --adopt CONFIG`: the next one, after a shim that was killed.
//!
//! `godwit-shim --pager DIRECTORY SOCKET`: its child while memory arrives. See
//! `godwit_runtime::memory::pager`.
//!
//! `godwit-shim --exec DIRECTORY`: the parent of a program started in a container that runs. See
//! `godwit_runtime::exec`.

use std::{fs::File, io::stderr, os::fd::AsFd, path::Path, process::ExitCode, sync::Arc};

use godwit_runtime::shim::{Begin, run};

fn main() -> ExitCode {
    // A descriptor of its own: what is forked to become the container's first process has the
    // container's output as its standard error, and must not log into it.
    let log = match stderr().as_fd().try_clone_to_owned() {
        Ok(log) => Arc::new(File::from(log)),
        Err(error) => {
            eprintln!("no log: {error}");
            return ExitCode::FAILURE;
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("GODWIT_SHIM_LOG")
                // They warn of every controller and every system call that a kernel lacks, at every
                // start.
                .unwrap_or_else(|_| "warn,libcgroups=error,libcontainer::seccomp=error".into()),
        )
        .with_ansi(false)
        .with_writer(log)
        .init();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let result: Result<(), Box<dyn std::error::Error>> = match arguments.as_slice() {
        [config] => run(Path::new(config), Begin::Anew).map_err(Into::into),
        [mode, config] if mode == "--adopt" => {
            run(Path::new(config), Begin::Adopt).map_err(Into::into)
        }
        [mode, directory, feed] if mode == "--pager" => {
            godwit_runtime::memory::pager::run(Path::new(directory), Path::new(feed))
                .map_err(Into::into)
        }
        [mode, directory] if mode == "--exec" => {
            godwit_runtime::exec::keeper::run(Path::new(directory)).map_err(Into::into)
        }
        _ => {
            eprintln!("usage: godwit-shim CONFIG");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &*error, "failed");
            ExitCode::FAILURE
        }
    }
}
