//! Developer tasks, all behind one door: `cargo xtask TASK`.
//!
//! It depends on next to nothing, so that it is built in a moment and can build the rest.

mod bench;
mod cargo;
mod demo;
mod dist;
mod faults;
mod fuzz;
mod lint;
mod packages;
mod release;
mod setup;
mod simulate;
mod test;
mod tidy;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

struct Task {
    name: &'static str,
    what: &'static str,
    run: fn(Vec<String>) -> anyhow::Result<()>,
}

const TASKS: &[Task] = &[
    Task {
        name: "demo",
        what: "move Redis between three hosts under load; `--keep` leaves the cluster up",
        run: |args| demo::run(args),
    },
    Task {
        name: "test",
        what: "every test, those that need root included",
        run: |args| test::run(args),
    },
    Task {
        name: "bench",
        what: "measure migrations",
        run: |args| bench::run(args),
    },
    Task {
        name: "faults",
        what: "break everything once at every point of a migration",
        run: |args| faults::run(args),
    },
    Task {
        name: "fuzz",
        what: "random input for what reads images; `--quick`: a minute each",
        run: |args| fuzz::run(&args),
    },
    Task {
        name: "simulate",
        what: "whole clusters in virtual time, a seed each; `--seed S --trace` shows one",
        run: simulate::run,
    },
    Task {
        name: "dist",
        what: "what is installed on machines: a tar file and a .deb, in `target/dist`",
        run: dist::run,
    },
    Task {
        name: "lint",
        what: "rustfmt, clippy, and cargo-deny where it is installed",
        run: lint::run,
    },
    Task {
        name: "tidy",
        what: "who may import whom, and the form of the source files",
        run: tidy::run,
    },
];

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(name) = args.next() else {
        print!("{}", listing());
        return ExitCode::SUCCESS;
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        print!("{}", listing());
        return ExitCode::SUCCESS;
    }
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprint!("error: no task `{name}`\n\n{}", listing());
        return ExitCode::from(2);
    };
    match (task.run)(args.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn listing() -> String {
    let tasks: String = TASKS
        .iter()
        .map(|task| format!("  {:<8} {}\n", task.name, task.what))
        .collect();
    format!("cargo xtask TASK\n\n{tasks}")
}

/// The root of the workspace: all paths of all tasks are relative to it.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_listed() {
        let listing = listing();
        for task in TASKS {
            assert!(listing.contains(&format!("  {}", task.name)));
        }
        assert!(root().join("Cargo.lock").exists());
    }
}
