//! What is done with a container when its process ends, and where it may run.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::OptionProblem;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyOptions {
    pub restart: RestartPolicy,
    /// Removed by the cluster once it has ended.
    pub remove: Option<AutoRemove>,
    pub labels: BTreeMap<String, String>,
    /// What the labels of its host must be, wherever it goes.
    pub constraints: Vec<Constraint>,
}

/// Whether a container that has ended by itself is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// After an exit code other than 0, at most so often; 0: no bound.
    OnFailure {
        retries: u32,
    },
    Always,
    UnlessStopped,
}

impl RestartPolicy {
    /// `restarts`: how often it was started again since somebody started it.
    pub fn applies(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { retries } => code != 0 && (retries == 0 || restarts < retries),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = OptionProblem;
    fn from_str(text: &str) -> Result<Self, OptionProblem> {
        let refuse = || {
            OptionProblem::new(
                "--restart",
                text,
                "no, always, unless-stopped or on-failure[:COUNT]",
            )
        };
        match text.split_once(':') {
            None => match text {
                "" | "no" => Ok(Self::No),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                "on-failure" => Ok(Self::OnFailure { retries: 0 }),
                _ => Err(refuse()),
            },
            Some(("on-failure", count)) => {
                let retries = count.parse().map_err(|_| refuse())?;
                Ok(Self::OnFailure { retries })
            }
            Some(_) => Err(refuse()),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.pad("no"),
            Self::OnFailure { retries: 0 } => f.pad("on-failure"),
            Self::OnFailure { retries } => f.pad(&format!("on-failure:{retries}")),
            Self::Always => f.pad("always"),
            Self::UnlessStopped => f.pad("unless-stopped"),
        }
    }
}

/// `--rm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoRemove {
    AtOnce,
    /// Somebody follows it, who removes it once its output and exit code are read; the cluster does
    /// when that one does not come.
    Followed,
}

/// `label==value` or `label!=value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    pub label: String,
    pub equal: bool,
    pub value: String,
}

impl Constraint {
    /// `labels`: the host's.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        (labels.get(&self.label) == Some(&self.value)) == self.equal
    }
}

impl FromStr for Constraint {
    type Err = OptionProblem;
    fn from_str(text: &str) -> Result<Self, OptionProblem> {
        let found = ["==", "!="].into_iter().find_map(|operator| {
            let (label, value) = text.split_once(operator)?;
            let part = |part: &str| !part.is_empty() && !part.contains(['=', '!']);
            let label = label.trim().trim_start_matches("node.labels.");
            let value = value.trim();
            (part(label) && part(value) && is_plain(text)).then(|| Self {
                label: label.to_owned(),
                equal: operator == "==",
                value: value.to_owned(),
            })
        });
        found
            .ok_or_else(|| OptionProblem::new("--constraint", text, "LABEL==VALUE or LABEL!=VALUE"))
    }
}

impl TryFrom<String> for Constraint {
    type Error = OptionProblem;
    fn try_from(text: String) -> Result<Self, OptionProblem> {
        text.parse()
    }
}

impl From<Constraint> for String {
    fn from(constraint: Constraint) -> String {
        constraint.to_string()
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.equal { "==" } else { "!=" };
        write!(f, "{}{operator}{}", self.label, self.value)
    }
}

/// No control characters, and not endless.
fn is_plain(text: &str) -> bool {
    text.len() <= 4096 && !text.chars().any(char::is_control)
}

/// `KEY=VALUE`, or `KEY` with an empty value, as labels of containers and hosts are typed.
pub fn parse_label(text: &str) -> Result<(String, String), OptionProblem> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() || !is_plain(key) || value.len() > 64 << 10 {
        return Err(OptionProblem::new("--label", text, "KEY=VALUE"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl PolicyOptions {
    /// What contradicts itself.
    pub fn check(&self) -> Result<(), OptionProblem> {
        if self.remove.is_some() && self.restart != RestartPolicy::No {
            return Err(OptionProblem::new(
                "--rm",
                &format!("--restart {}", self.restart),
                "one of the two: a container that is removed can't be started again",
            ));
        }
        for (key, value) in &self.labels {
            parse_label(&format!("{key}={value}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_typed_as_dockers() {
        for text in [
            "no",
            "always",
            "unless-stopped",
            "on-failure",
            "on-failure:3",
        ] {
            let policy: RestartPolicy = text.parse().unwrap();
            assert_eq!(policy.to_string(), text);
        }
        for bad in [
            "never",
            "always:3",
            "on-failure:",
            "on-failure:-1",
            "on-failure:x",
        ] {
            assert!(bad.parse::<RestartPolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_looks_at_the_exit_code_and_at_the_count() {
        let twice = RestartPolicy::OnFailure { retries: 2 };
        assert!(twice.applies(1, 1) && !twice.applies(1, 2) && !twice.applies(0, 0));
        assert!(RestartPolicy::OnFailure { retries: 0 }.applies(137, 9999));
        assert!(RestartPolicy::Always.applies(0, 7) && !RestartPolicy::No.applies(1, 0));
    }

    #[test]
    fn a_constraint_compares_a_label() {
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        for (text, holds) in [
            ("disk==ssd", true),
            ("disk != ssd", false),
            ("disk==hdd", false),
            ("zone!=a", true),
            ("zone==a", false),
        ] {
            let constraint: Constraint = text.parse().unwrap();
            assert_eq!(constraint.holds(&labels), holds, "{text}");
        }
        for bad in ["disk", "disk=ssd", "==x", "disk==", "a==b==c", "a\n==b"] {
            assert!(bad.parse::<Constraint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_removed_is_not_started_again() {
        let options = PolicyOptions {
            restart: RestartPolicy::Always,
            remove: Some(AutoRemove::AtOnce),
            ..PolicyOptions::default()
        };
        assert!(options.check().unwrap_err().to_string().contains("--rm"));
    }
}
