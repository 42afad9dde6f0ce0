//! The first process of a container that was run with `--init`: starts the command, passes signals on
//! to it, reaps whatever is orphaned, and ends as the command does. Linked statically by `build.rs`,
//! since nothing of its host is in the container; it uses nothing but the standard library.

mod sys;

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus},
};

/// Of a command that can't be executed, and of one that is not there, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    arguments.next_if(|argument| argument == "--");
    let Some(program) = arguments.next() else {
        eprintln!("usage: godwit-init [--] PROGRAM [ARGUMENT…]");
        return ExitCode::from(2);
    };
    // Before the start: a signal that comes meanwhile waits.
    let signals = sys::block_all();
    let mut command = Command::new(&program);
    command.args(arguments);
    sys::unblock_in_child(&mut command, &signals);
    let child = match command.spawn() {
        Ok(child) => child.id() as i32,
        Err(error) => {
            eprintln!("`{}`: {error}", program.to_string_lossy());
            return ExitCode::from(match error.kind() {
                std::io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            });
        }
    };
    loop {
        let signal = sys::wait(&signals);
        if signal == sys::CHILD {
            while let Some((pid, status)) = sys::reap() {
                if pid == child {
                    return ended(ExitStatus::from_raw(status));
                }
            }
        } else {
            sys::pass_on(child, signal);
        }
    }
}

fn ended(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(code as u8)
}
