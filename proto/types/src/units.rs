//! Quantities as people type them: `512m`, `1.5`, `300ms`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a quantity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("size `{0}` is not valid: a number and optionally b, k, m, g or t, as in `512m`")]
    Size(String),
    #[error("cpus `{0}` is not valid: a positive number such as `0.5` or `2`")]
    Cpus(String),
    #[error("time `{0}` is not valid: a number and ms, s, m or h, as in `300ms`")]
    Millis(String),
}

/// Bytes. Typed as Docker's: powers of 1024, `512m`, `1.5g`, `64KiB`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError::Size(text.chars().take(40).collect());
        let lower = text.trim().to_ascii_lowercase();
        let split = lower
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(lower.len());
        let (number, unit) = lower.split_at(split);
        let shift = match unit {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let bytes = number * (1u64 << shift) as f64;
        if bytes >= 0.0 && bytes < 2f64.powi(63) {
            Ok(Self(bytes as u64))
        } else {
            Err(refuse())
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut value = self.0 as f64;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < units.len() {
            value /= 1024.0;
            unit += 1;
        }
        let text = if unit == 0 || value >= 100.0 {
            format!("{value:.0} {}", units[unit])
        } else {
            format!("{value:.1} {}", units[unit])
        };
        f.pad(&text)
    }
}

/// Processor time in thousandths of one processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cpus(pub u32);

impl FromStr for Cpus {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let value: f64 = text
            .parse()
            .map_err(|_| UnitError::Cpus(text.chars().take(40).collect()))?;
        // The kernel's quota is at least 1 ms in a period of 100 ms.
        if (0.01..=4096.0).contains(&value) {
            Ok(Self((value * 1000.0).round() as u32))
        } else {
            Err(UnitError::Cpus(text.chars().take(40).collect()))
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}", f64::from(self.0) / 1000.0))
    }
}

/// A span of time in milliseconds. Typed with its unit: `300ms`, `1.5s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl FromStr for Millis {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError::Millis(text.chars().take(40).collect());
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(refuse)?;
        let (number, unit) = text.split_at(split);
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => return Err(refuse()),
        };
        let number: f64 = number.parse().map_err(|_| refuse())?;
        let millis = (number * factor).round();
        if millis < 2f64.powi(53) {
            Ok(Self(millis as u64))
        } else {
            Err(refuse())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64KiB", 64 << 10),
            ("7b", 7),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1e3", "99999999999t", "1..2"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(1536 << 10).to_string(), "1.5 MiB");
    }

    #[test]
    fn times_have_their_unit() {
        for (text, millis) in [
            ("300ms", 300),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0ms", 0),
        ] {
            assert_eq!(text.parse(), Ok(Millis(millis)), "{text}");
        }
        let endless = format!("{}h", "9".repeat(400));
        for bad in [
            "", "300", "ms", "-1s", "1 s", "1S", "1d", "1..2s", "infs", &endless,
        ] {
            let error = bad.parse::<Millis>().unwrap_err();
            assert!(error.to_string().len() < 120, "{error}");
        }
    }

    #[test]
    fn cpus_have_bounds() {
        assert_eq!("1.5".parse::<Cpus>().unwrap(), Cpus(1500));
        for bad in ["0", "-1", "nan", "inf", "x", "5000"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }
}
