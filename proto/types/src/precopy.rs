//! Memory that moves while the container still runs: how it was asked for, one round of it, how
//! it stands, and what it would come to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest freeze that is accepted when none is named.
pub const MAX_DOWNTIME_MS: u64 = 300;
/// More rounds than any pre-copy needs: what is stored of one.
pub const MAX_ROUNDS: usize = 100;
/// The longest freeze that can be asked for: an hour.
const DOWNTIME_MS: u64 = 60 * 60 * 1000;
/// The longest time limit: 30 days.
const TIMEOUT_MS: u64 = 30 * 24 * DOWNTIME_MS;
/// Below this no migration would ever end.
const BANDWIDTH: u64 = 64 << 10;

/// When the memory moves: before the freeze, after it, or in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationMode {
    /// Pre-copy where the source can track what is written, else as `Stop`.
    #[default]
    Auto,
    /// Before: in rounds, until what is left fits in the freeze.
    PreCopy,
    /// After: the destination fetches from the frozen source what it needs.
    PostCopy,
    /// In it: stop, copy, start.
    Stop,
}

impl MigrationMode {
    /// Those that can be asked for.
    pub const OFFERED: [Self; 4] = [Self::Auto, Self::PreCopy, Self::PostCopy, Self::Stop];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::PreCopy => "precopy",
            Self::PostCopy => "postcopy",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for MigrationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether memory is compressed on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// When it arrives sooner so: the link is the limit, and pages shrink.
    #[default]
    Auto,
    On,
    Off,
}

impl Compression {
    pub const ALL: [Self; 3] = [Self::Auto, Self::On, Self::Off];

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            OptionError::new("compress", text, format!("one of {names}"))
        })
    }
}

/// Why options were refused; `option` is the one that is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} `{given}` is not valid: {problem}")]
pub struct OptionError {
    pub option: &'static str,
    pub given: String,
    pub problem: String,
}

impl OptionError {
    pub(crate) fn new(
        option: &'static str,
        given: impl fmt::Display,
        problem: impl Into<String>,
    ) -> Self {
        Self {
            option,
            given: given.to_string().chars().take(40).collect(),
            problem: problem.into(),
        }
    }
}

impl FromStr for MigrationMode {
    type Err = OptionError;
    fn from_str(text: &str) -> Result<Self, OptionError> {
        let mut modes = Self::OFFERED.into_iter();
        modes.find(|mode| mode.as_str() == text).ok_or_else(|| {
            let names = Self::OFFERED.map(Self::as_str).join(", ");
            OptionError::new("mode", text, format!("the modes are {names}"))
        })
    }
}

/// How a migration is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigrationOptions {
    pub mode: MigrationMode,
    /// The longest freeze that pre-copy may predict; above it, it gives up.
    pub max_downtime_ms: u64,
    /// Bytes a second from agent to agent. None: what the link takes.
    pub max_bandwidth: Option<u64>,
    /// From the request to the end of pre-copy. None: as long as it takes.
    pub timeout_ms: Option<u64>,
    /// Left out where it is the default, as it was before there was a choice.
    #[serde(skip_serializing_if = "Compression::is_auto")]
    pub compress: Compression,
}

impl Default for MigrationOptions {
    fn default() -> Self {
        Self {
            mode: MigrationMode::default(),
            max_downtime_ms: MAX_DOWNTIME_MS,
            max_bandwidth: None,
            timeout_ms: None,
            compress: Compression::default(),
        }
    }
}

impl MigrationOptions {
    /// Stop and copy: what every migration was before there were options.
    pub fn stop() -> Self {
        Self {
            mode: MigrationMode::Stop,
            ..Self::default()
        }
    }

    /// Whether the figures make sense.
    pub fn check(&self) -> Result<(), OptionError> {
        if !(1..=DOWNTIME_MS).contains(&self.max_downtime_ms) {
            let given = format!("{}ms", self.max_downtime_ms);
            return Err(OptionError::new("max-downtime", given, "from 1ms to 60m"));
        }
        if let Some(bandwidth) = self.max_bandwidth.filter(|given| *given < BANDWIDTH) {
            let problem = "at least 64k a second";
            return Err(OptionError::new("max-bandwidth", bandwidth, problem));
        }
        let fits = |given: &u64| (1..=TIMEOUT_MS).contains(given);
        if let Some(timeout) = self.timeout_ms.filter(|given| !fits(given)) {
            let given = format!("{timeout}ms");
            return Err(OptionError::new("timeout", given, "from 1ms to 30 days"));
        }
        Ok(())
    }
}

/// One pass of pre-copy, done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// On the wire.
    pub sent_bytes: u64,
    pub sent_pages: u64,
    /// Not sent, since they hold nothing but zeros.
    pub zero_pages: u64,
    /// Written again by its end: what the next round has to do.
    pub dirty_pages: u64,
    pub micros: u64,
}

/// How pre-copy stands now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    pub round: u32,
    /// Of this round.
    pub pages_left: u64,
    /// Of this round.
    pub pages_total: u64,
    pub dirty_pages_per_s: u64,
    pub bytes_per_s: u64,
    pub predicted_freeze_us: u64,
}

/// What a source says of one migration while it pre-copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReport {
    pub migration: crate::MigrationId,
    pub progress: Progress,
}

/// What a migration would come to, were it started now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimate {
    pub rounds: u32,
    /// From agent to agent.
    pub bytes: u64,
    /// 0: not known.
    pub predicted_freeze_us: u64,
    pub dirty_pages_per_s: u64,
    pub resident_bytes: u64,
    /// What would be other than one might expect, and is no reason against it.
    pub note: Option<String>,
    /// Every reason why it would be refused or fail. Empty: nothing is known against it.
    pub against: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_as_it_is_written() {
        for mode in MigrationMode::OFFERED {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(json, format!("\"{mode}\""));
        }
        let error = "sideways".parse::<MigrationMode>().unwrap_err();
        let said = "mode `sideways` is not valid: the modes are auto, precopy, postcopy, stop";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn compression_is_read_as_it_is_written() {
        for one in Compression::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
            let json = serde_json::to_string(&one).unwrap();
            assert_eq!(json, format!("\"{one}\""));
        }
        let error = "zstd".parse::<Compression>().unwrap_err();
        let said = "compress `zstd` is not valid: one of auto, on, off";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn figures_without_sense_are_refused_by_name() {
        let with = |change: fn(&mut MigrationOptions)| {
            let mut options = MigrationOptions::default();
            change(&mut options);
            options.check().map_err(|error| error.option)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|o| o.max_downtime_ms = 0), Err("max-downtime"));
        assert_eq!(with(|o| o.max_downtime_ms = u64::MAX), Err("max-downtime"));
        assert_eq!(with(|o| o.max_bandwidth = Some(1)), Err("max-bandwidth"));
        assert_eq!(with(|o| o.timeout_ms = Some(0)), Err("timeout"));
        assert_eq!(with(|o| o.timeout_ms = Some(u64::MAX)), Err("timeout"));
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let options: MigrationOptions = serde_json::from_str("{}").unwrap();
        assert_eq!(options, MigrationOptions::default());
        assert_eq!(
            (options.max_downtime_ms, options.max_bandwidth),
            (300, None)
        );
    }
}
