//! `tar`, as CRIU runs it for a tmpfs. See `godwit_runtime::tmpfs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match godwit_runtime::tmpfs::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut next = std::error::Error::source(&error);
            while let Some(source) = next {
                text = format!("{text}: {source}");
                next = source.source();
            }
            // CRIU has its log here: this is the form that its own errors have there.
            eprintln!("Error (godwit-tar): {text}");
            ExitCode::FAILURE
        }
    }
}
