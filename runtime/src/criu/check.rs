//! Can this host's CRIU work with this host's kernel?

use std::process::{Command, Output, Stdio};

use super::Program;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// `4.2.1`; None: it can't be started.
    pub version: Option<String>,
    /// Why it can't be used, with the remedy. None: it can.
    pub problem: Option<String>,
}

const REMEDY: &str = "run `deploy/setup.sh --host-only`, which installs a CRIU for this kernel";

/// Asks CRIU itself. Takes some tens of milliseconds: once per agent start.
pub fn check(program: &Program) -> Checked {
    let version = match run(program, &["--version"]) {
        Ok(output) => version(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            let problem = format!(
                "criu `{}` can't be started: {error}; {REMEDY}",
                program.path.display()
            );
            return Checked {
                version: None,
                problem: Some(problem),
            };
        }
    };
    let problem = match run(program, &["check"]) {
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            let line = text
                .lines()
                .find(|line| line.contains("Error"))
                .or_else(|| text.lines().last())
                .unwrap_or("no output")
                .trim()
                .to_owned();
            Some(format!("`criu check` fails: {line}; {REMEDY}"))
        }
        Err(error) => Some(format!("`criu check` can't be run: {error}; {REMEDY}")),
    };
    Checked { version, problem }
}

fn run(program: &Program, arguments: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new(&program.path);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("CRIU_FAULT");
    if let Some(library) = &program.interpose {
        command.env("LD_PRELOAD", library);
    }
    command.output()
}

fn version(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("Version:"))
        .map(|v| v.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_and_a_missing_criu_is_said() {
        assert_eq!(
            version("Version: 4.2.1\nGitID: x\n").as_deref(),
            Some("4.2.1")
        );
        let missing = check(&Program {
            path: "/nonexistent/criu".into(),
            interpose: None,
        });
        assert!(missing.version.is_none() && missing.problem.unwrap().contains("setup.sh"));
    }
}
