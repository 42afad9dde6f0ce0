//! A program that is started in a container that runs already.

use serde::{Deserialize, Serialize};

use crate::TerminalSize;

/// Words and variables that are taken at most, and their length together.
const WORDS: usize = 4096;
const BYTES: usize = 1 << 20;

/// What `godwit exec` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecRequest {
    /// Name, id, or the beginning of an id; from leader to agent the whole id.
    pub container: String,
    pub command: Vec<String>,
    /// `KEY=value`; wins over the container's.
    pub env: Vec<String>,
    /// Empty: the container's working directory.
    pub working_dir: String,
    /// `user[:group]`, names or numbers. Empty: the container's user.
    pub user: String,
    pub tty: bool,
    /// Its standard input is the caller's; else it is at its end from the beginning.
    pub stdin: bool,
    /// Nobody looks at it: its output is lost, and the answer comes when it has begun.
    pub detach: bool,
    /// All capabilities.
    pub privileged: bool,
    pub size: Option<TerminalSize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecRequestError {
    #[error("no command was given")]
    NoCommand,
    #[error("a word of the command, a variable or a name has a zero byte in it")]
    Zero,
    #[error("`{0}` is no variable: it has no name")]
    Variable(String),
    #[error("working directory `{0}` is not absolute")]
    Relative(String),
    #[error(
        "command and variables are longer than {} words or {BYTES} bytes",
        WORDS
    )]
    TooLong,
}

impl ExecRequest {
    /// What no container could be asked for.
    pub fn check(&self) -> Result<(), ExecRequestError> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(ExecRequestError::NoCommand);
        }
        let words = || {
            let others = [&self.working_dir, &self.user];
            self.command.iter().chain(&self.env).chain(others)
        };
        if words().count() > WORDS || words().map(String::len).sum::<usize>() > BYTES {
            return Err(ExecRequestError::TooLong);
        }
        if words().any(|word| word.contains('\0')) {
            return Err(ExecRequestError::Zero);
        }
        let nameless = |entry: &&String| entry.starts_with('=') || !entry.contains('=');
        if let Some(entry) = self.env.iter().find(nameless) {
            return Err(ExecRequestError::Variable(entry.escape_debug().to_string()));
        }
        if !self.working_dir.is_empty() && !self.working_dir.starts_with('/') {
            let dir = self.working_dir.escape_debug().to_string();
            return Err(ExecRequestError::Relative(dir));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_container_could_do_is_refused() {
        let good = ExecRequest {
            command: vec!["ls".into(), String::new()],
            env: vec!["A=".into()],
            ..ExecRequest::default()
        };
        assert_eq!(good.check(), Ok(()));
        let with = |change: &dyn Fn(&mut ExecRequest)| {
            let mut request = good.clone();
            change(&mut request);
            request.check().unwrap_err()
        };
        assert_eq!(with(&|r| r.command.clear()), ExecRequestError::NoCommand);
        assert_eq!(
            with(&|r| r.command.push("a\0".into())),
            ExecRequestError::Zero
        );
        assert!(matches!(
            with(&|r| r.env.push("A".into())),
            ExecRequestError::Variable(_)
        ));
        assert!(matches!(
            with(&|r| r.working_dir = "x".into()),
            ExecRequestError::Relative(_)
        ));
        assert_eq!(
            with(&|r| r.command.push("x".repeat(2 << 20))),
            ExecRequestError::TooLong
        );
    }
}
