//! Which migration waits for which: its priority, how many may be under way at once, and what
//! becomes of a host that is to be left.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ContainerName, HostName, MigrationId, OptionError, Phase, Status};

/// The highest limit that can be set.
const MOST: u32 = 1000;

/// Which of the queued migrations starts first. Among equals it is the one asked for first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Those of a drain.
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut all = Self::ALL.into_iter();
        all.find(|known| known.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            OptionError::new("priority", text, format!("the priorities are {names}"))
        })
    }
}

/// How many migrations may be under way at once. One asked for beyond waits in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationLimits {
    /// Away from each host.
    pub out_of_host: u32,
    /// To each host.
    pub into_host: u32,
    /// In the whole cluster.
    pub cluster: u32,
}

impl Default for MigrationLimits {
    fn default() -> Self {
        Self {
            out_of_host: 2,
            into_host: 2,
            cluster: 8,
        }
    }
}

impl MigrationLimits {
    /// Whether the figures make sense.
    pub fn check(&self) -> Result<(), OptionError> {
        let named = [
            ("migrations-out", self.out_of_host),
            ("migrations-in", self.into_host),
            ("migrations", self.cluster),
        ];
        for (option, value) in named {
            if !(1..=MOST).contains(&value) {
                return Err(OptionError::new(option, value, format!("from 1 to {MOST}")));
            }
        }
        Ok(())
    }
}

/// How far the drain of a host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainView {
    pub host: HostName,
    /// False: it takes containers again.
    pub draining: bool,
    /// Containers that left it since the drain began.
    pub moved: u32,
    /// Those that are still on it, by name.
    pub left: Vec<DrainLeft>,
}

/// A container that a drain has not moved yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainLeft {
    pub container: ContainerId,
    pub name: ContainerName,
    pub status: Status,
    /// Its migration, under way or queued.
    pub migration: Option<MigrationId>,
    pub phase: Option<Phase>,
    pub to: Option<HostName>,
    /// Its migration's place in the queue, from 1.
    pub place: Option<u32>,
    /// How often it could not be moved.
    pub attempts: u32,
    /// Why it could not be moved, the last time.
    pub reason: Option<String>,
    /// The drain does not try again until it is asked for anew.
    pub stuck: bool,
}

impl DrainView {
    /// Nothing is left that the drain still tries to move.
    pub fn is_over(&self) -> bool {
        !self.draining || self.left.iter().all(|left| left.stuck)
    }

    /// Nothing is left at all.
    pub fn is_drained(&self) -> bool {
        self.draining && self.left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_is_read_as_it_is_written() {
        for priority in Priority::ALL {
            assert_eq!(priority.to_string().parse(), Ok(priority));
            let json = serde_json::to_string(&priority).unwrap();
            assert_eq!(json, format!("\"{priority}\""));
        }
        assert!(Priority::Low < Priority::Normal && Priority::Normal < Priority::High);
        let error = "urgent".parse::<Priority>().unwrap_err();
        let said = "priority `urgent` is not valid: the priorities are low, normal, high";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn a_limit_of_none_is_refused_by_name() {
        let with = |change: fn(&mut MigrationLimits)| {
            let mut limits = MigrationLimits::default();
            change(&mut limits);
            limits.check().map_err(|error| error.option)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|l| l.out_of_host = 0), Err("migrations-out"));
        assert_eq!(with(|l| l.into_host = 0), Err("migrations-in"));
        assert_eq!(with(|l| l.cluster = 1001), Err("migrations"));
    }
}
