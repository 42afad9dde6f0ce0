//! A moment as a user writes it: a time, seconds since 1970, or how long ago.

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339,
    macros::format_description,
};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no moment: give a time as 2026-01-02T03:04:05Z, a date, seconds since 1970, or how long ago as 1h30m"
)]
pub struct MomentError(String);

/// Nanoseconds since 1970. `now`: the same, for what is said of the past. Times without a zone
/// are UTC.
pub fn parse(text: &str, now: u64) -> Result<u64, MomentError> {
    ago(text)
        .map(|ago| now.saturating_sub(ago))
        .or_else(|| seconds(text))
        .or_else(|| date(text))
        .ok_or_else(|| MomentError(text.chars().take(60).collect()))
}

/// Digits, with or without a fraction.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
}

/// As Go writes durations.
fn ago(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add((number * unit) as u64)?;
        rest = after;
    }
    (!text.is_empty()).then_some(sum)
}

fn date(text: &str) -> Option<u64> {
    let plain = format_description!(
        version = 2,
        "[year]-[month]-[day]T[hour]:[minute][optional [:[second][optional [.[subsecond]]]]]"
    );
    let day = format_description!("[year]-[month]-[day]");
    let parsed = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, &plain).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| Date::parse(text, &day).map(|day| day.midnight().assume_utc()));
    u64::try_from(parsed.ok()?.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn every_form_that_docker_takes_is_understood() {
        let now = 2_000_000_000 * SECOND;
        let at = |text| parse(text, now).unwrap();
        assert_eq!(
            at("2026-01-02T03:04:05.000000006Z"),
            1_767_323_045_000_000_006
        );
        assert_eq!(at("2026-01-02T04:04:05+01:00"), 1_767_323_045 * SECOND);
        assert_eq!(at("2026-01-02T03:04:05"), 1_767_323_045 * SECOND);
        assert_eq!(at("2026-01-02T03:04"), 1_767_323_040 * SECOND);
        assert_eq!(at("2026-01-02"), 1_767_312_000 * SECOND);
        assert_eq!(at("1767323045"), 1_767_323_045 * SECOND);
        assert_eq!(at("1.5"), 1_500_000_000);
        assert_eq!(at("1h30m"), now - 5400 * SECOND);
        assert_eq!(at("1.5s"), now - 1_500_000_000);
        assert_eq!(at("10"), 10 * SECOND);
        for wrong in ["", "yesterday", "5x", "-1s", "2026-13-01"] {
            assert!(parse(wrong, now).is_err(), "{wrong}");
        }
    }
}
