//! How it is found out whether a container does its work.

use serde::{Deserialize, Serialize};

use super::OptionProblem;

/// What overrides the image's check. None and empty: as the image says, else Docker's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthOptions {
    /// No check at all, even if the image has one.
    pub off: bool,
    /// `["CMD", …]` or `["CMD-SHELL", TEXT]`.
    pub test: Vec<String>,
    pub interval_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    pub start_period_ms: Option<u64>,
    pub retries: Option<u32>,
}

impl HealthOptions {
    pub fn check(&self) -> Result<(), OptionProblem> {
        let refuse = |option, takes: &str| Err(OptionProblem::new(option, "", takes));
        let others = self.interval_ms.is_some()
            || self.timeout_ms.is_some()
            || self.start_period_ms.is_some()
            || self.retries.is_some()
            || !self.test.is_empty();
        if self.off && others {
            return refuse(
                "--no-healthcheck",
                "no other health option: there is no check then",
            );
        }
        match self.test.first().map(String::as_str) {
            None => Ok(()),
            Some("CMD") if self.test.len() > 1 => Ok(()),
            Some("CMD-SHELL") if self.test.len() == 2 => Ok(()),
            Some(_) => refuse("--health-cmd", "a command"),
        }
    }
}

/// A check as it is done, nothing left open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is executed.
    pub command: Vec<String>,
    pub interval_ms: u64,
    pub timeout_ms: u64,
    /// So long a failure does not count.
    pub start_period_ms: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
}

impl HealthCheck {
    /// The image's check under what the user said. None: there is none.
    pub fn merge(image: Option<&HealthOptions>, user: Option<&HealthOptions>) -> Option<Self> {
        let none = HealthOptions::default();
        let (image, user) = (image.unwrap_or(&none), user.unwrap_or(&none));
        if user.off || (user.test.is_empty() && image.off) {
            return None;
        }
        let test = if user.test.is_empty() {
            &image.test
        } else {
            &user.test
        };
        let command = match test.split_first() {
            Some((kind, rest)) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            Some((kind, [text])) if kind == "CMD-SHELL" => {
                vec!["/bin/sh".to_owned(), "-c".to_owned(), text.clone()]
            }
            _ => return None,
        };
        let positive = |value: Option<u64>| value.filter(|millis| *millis > 0);
        let time = |user: Option<u64>, image: Option<u64>, default: u64| {
            positive(user).or(positive(image)).unwrap_or(default)
        };
        Some(Self {
            command,
            interval_ms: time(user.interval_ms, image.interval_ms, 30_000),
            timeout_ms: time(user.timeout_ms, image.timeout_ms, 30_000),
            start_period_ms: time(user.start_period_ms, image.start_period_ms, 0),
            retries: user
                .retries
                .filter(|count| *count > 0)
                .or(image.retries.filter(|count| *count > 0))
                .unwrap_or(3),
        })
    }
}

/// How a container does, by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

/// The status and what it follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing: u32,
}

impl Health {
    pub const STARTING: Self = Self {
        status: HealthStatus::Starting,
        failing: 0,
    };

    /// After one more check. `age_ms`: since the container was started.
    pub fn after(self, healthy: bool, check: &HealthCheck, age_ms: u64) -> Self {
        if healthy {
            return Self {
                status: HealthStatus::Healthy,
                failing: 0,
            };
        }
        if self.status == HealthStatus::Starting && age_ms < check.start_period_ms {
            return self;
        }
        let failing = self.failing.saturating_add(1);
        Self {
            status: if failing >= check.retries {
                HealthStatus::Unhealthy
            } else {
                self.status
            },
            failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_says_more_than_the_image() {
        let image = HealthOptions {
            test: vec!["CMD".into(), "ping".into()],
            interval_ms: Some(5000),
            ..HealthOptions::default()
        };
        let user = HealthOptions {
            retries: Some(1),
            ..HealthOptions::default()
        };
        let check = HealthCheck::merge(Some(&image), Some(&user)).unwrap();
        assert_eq!(check.command, ["ping"]);
        assert_eq!((check.interval_ms, check.retries), (5000, 1));
        let shell = HealthOptions {
            test: vec!["CMD-SHELL".into(), "x || y".into()],
            ..HealthOptions::default()
        };
        let check = HealthCheck::merge(Some(&image), Some(&shell)).unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "x || y"]);
        let off = HealthOptions {
            off: true,
            ..HealthOptions::default()
        };
        assert_eq!(HealthCheck::merge(Some(&image), Some(&off)), None);
        assert_eq!(HealthCheck::merge(None, None), None);
    }

    #[test]
    fn so_many_failures_in_a_row_make_it_unhealthy() {
        let check = HealthCheck {
            command: vec!["x".into()],
            interval_ms: 1,
            timeout_ms: 1,
            start_period_ms: 100,
            retries: 2,
        };
        let young = Health::STARTING.after(false, &check, 50);
        assert_eq!(young, Health::STARTING);
        let once = young.after(false, &check, 200);
        assert_eq!((once.status, once.failing), (HealthStatus::Starting, 1));
        let twice = once.after(false, &check, 300);
        assert_eq!(twice.status, HealthStatus::Unhealthy);
        assert_eq!(twice.after(true, &check, 400).status, HealthStatus::Healthy);
    }
}
