//! Why an option's value was refused.

/// The option, what was given, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} `{}` is not valid: {takes}", given.escape_debug())]
pub struct OptionProblem {
    pub option: &'static str,
    pub given: String,
    pub takes: String,
}

impl OptionProblem {
    pub fn new(option: &'static str, given: &str, takes: impl Into<String>) -> Self {
        Self {
            option,
            given: given.chars().take(120).collect(),
            takes: takes.into(),
        }
    }
}
