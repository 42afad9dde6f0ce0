//! What is wrong with a Dockerfile, and where.

/// A fault at a line of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {fault}")]
pub struct BuildFault {
    pub file: String,
    pub line: u32,
    pub fault: Refused,
}

/// The fault itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("unknown instruction `{0}`")]
    Unknown(String),
    #[error("`{0}` needs {1}")]
    Arguments(&'static str, &'static str),
    #[error("`{0}` comes before the first `FROM`")]
    BeforeFrom(&'static str),
    #[error("there is no `FROM`: a Dockerfile begins with one")]
    NoFrom,
    #[error("`{instruction}` has no flag `{flag}`")]
    Flag {
        instruction: &'static str,
        flag: String,
    },
    #[error("flag `{flag}` is not supported: {instead}")]
    Unsupported { flag: String, instead: &'static str },
    #[error("`{what}` is not valid: {problem}")]
    Invalid { what: String, problem: String },
    #[error("heredoc `{0}` has no end")]
    Heredoc(String),
    #[error("the escape directive is `{0}`, which can only be a backslash or a backtick")]
    Escape(String),
    #[error("stage name `{0}` is used twice")]
    StageTwice(String),
    #[error("there is no stage `{0}`; there are: {1}")]
    NoStage(String, String),
    #[error("`{0}` is no name of an image")]
    ImageName(String),
    #[error("platform `{0}` is not this host's, `{1}`")]
    Platform(String, String),
    #[error("`{0}` is outside of the build context: only what is in it can be copied")]
    Outside(String),
    #[error("it is longer than {0}")]
    Long(&'static str),
    #[error("it has a control character")]
    Control,
}

impl Refused {
    pub fn at(self, file: &str, line: u32) -> BuildFault {
        BuildFault {
            file: file.to_owned(),
            line,
            fault: self,
        }
    }

    pub(crate) fn invalid(what: &str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.chars().take(200).collect(),
            problem: problem.into(),
        }
    }
}
