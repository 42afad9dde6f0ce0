//! What became of a container whose shim was killed when it had begun to resume it. A CRIU that has
//! lost its shim kills what it restored, unless it had its answer already: then it lets it run.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::kept::Task;

/// How long CRIU may take to do either, and the time between two looks.
const ENDS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// Waits for the CRIU's end. Whether the container runs.
pub fn runs(init: Task, restorer: Task) -> bool {
    let deadline = Instant::now() + ENDS;
    while restorer.lives() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(LOOK);
    }
    init.lives() && !is_held(init.pid)
}

/// Whether it still waits for a CRIU that was killed, too: in the code by which CRIU restores, which
/// is no file's.
fn is_held(pid: i32) -> bool {
    let of = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let syscall = of("syscall");
    let counter = syscall.split_ascii_whitespace().last();
    let counter = counter.and_then(|hex| u64::from_str_radix(hex.strip_prefix("0x")?, 16).ok());
    counter.is_some_and(|counter| of("maps").lines().any(|line| is_nameless(line, counter)))
}

/// `START-END MODE OFFSET DEVICE INODE     NAME`
fn is_nameless(line: &str, address: u64) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let inside = fields.next().and_then(|range| {
        let (start, end) = range.split_once('-')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        Some((number(start)?..number(end)?).contains(&address))
    });
    inside == Some(true) && fields.nth(4).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_no_file_is_told_from_that_of_a_program() {
        let blob = "10000-11000 rwxp 00000000 00:00 0 ";
        assert!(is_nameless(blob, 0x10010) && !is_nameless(blob, 0x11000));
        let program = "55d0-66d0 r-xp 00000000 08:01 77      /bin/sh";
        assert!(!is_nameless(program, 0x55d1));
        let kernel = "7ffd0-7fff0 r-xp 00000000 00:00 0       [vdso]";
        assert!(!is_nameless(kernel, 0x7ffd8));
    }

    #[test]
    fn a_process_that_waits_in_its_own_code_runs() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let init = Task::of(child.id() as i32).unwrap();
        let gone = Task {
            start: init.start - 1,
            ..init
        };
        assert!(runs(init, gone));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!runs(init, gone));
    }
}
