//! Signals as people type them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A signal's number, 1 to 64. Typed as `KILL`, `SIGKILL`, `9` or `SIGRTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// By number, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// As the C libraries have them: the first two are theirs.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a signal: a name such as TERM or SIGKILL, or a number", .0.escape_debug())]
pub struct SignalError(String);

impl Signal {
    pub const TERM: Self = Self(15);
    pub const KILL: Self = Self(9);

    pub fn number(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = SignalError;
    fn try_from(number: i32) -> Result<Self, SignalError> {
        if (1..=RTMAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(SignalError(number.to_string()))
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> i32 {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = SignalError;
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let refuse = || SignalError(text.chars().take(40).collect());
        if let Ok(number) = text.parse::<i32>() {
            return Self::try_from(number).map_err(|_| refuse());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return Ok(Self(at as i32 + 1));
        }
        let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
            Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
            None if rest.is_empty() => Some(0),
            _ => None,
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest, '+').map(|up: i32| RTMIN.saturating_add(up))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest, '-').map(|down: i32| RTMAX.saturating_sub(down))
        } else {
            match name {
                "IOT" => Some(6),
                "CLD" => Some(17),
                "POLL" => Some(29),
                _ => None,
            }
        };
        number
            .filter(|number| *number >= RTMIN || !name.starts_with("RT"))
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(refuse)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => f.pad(&format!("SIG{name}")),
            None => f.pad(&self.0.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("1", 1),
            ("RTMIN+3", 37),
            ("SIGRTMAX", 64),
            ("SIGRTMAX-1", 63),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for bad in [
            "", "0", "65", "-9", "SIG", "FOO", "RTMIN+99", "RTMIN-1", "KILL\n",
        ] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal(40).to_string(), "40");
    }
}
