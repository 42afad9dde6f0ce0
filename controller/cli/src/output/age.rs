//! Times as people say them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// How long before `now_ms` something was. A moment to come, by a clock that differs, is now.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let units = [
        ("year", 365 * 86400),
        ("month", 30 * 86400),
        ("week", 7 * 86400),
        ("day", 86400),
        ("hour", 3600),
        ("minute", 60),
        ("second", 1),
    ];
    // As Docker: the next larger unit only when there are two of it.
    for (unit, length) in units {
        let count = seconds / length;
        if count >= 2 || (count == 1 && length == 1) {
            let plural = if count == 1 { "" } else { "s" };
            return format!("{count} {unit}{plural} ago");
        }
    }
    "just now".to_owned()
}

/// The moment in UTC, to the millisecond.
pub fn moment(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{ms} ms since 1970"))
}

/// Microseconds as milliseconds: one decimal below 10, else whole.
pub fn millis(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else {
        format!("{millis:.0} ms")
    }
}

/// Microseconds as seconds with three decimals, for a column.
pub fn seconds(micros: u128) -> String {
    format!("{:>7.3} s", micros as f64 / 1_000_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_largest_plural_unit() {
        for (seconds, text) in [
            (0, "just now"),
            (1, "1 second ago"),
            (90, "90 seconds ago"),
            (120, "2 minutes ago"),
            (5 * 3600, "5 hours ago"),
            (20 * 86400, "2 weeks ago"),
            (800 * 86400, "2 years ago"),
        ] {
            assert_eq!(ago(1000 * seconds, 0), text, "{seconds}");
        }
        assert_eq!(ago(0, 5000), "just now", "a clock that is ahead");
    }

    #[test]
    fn moments_and_durations() {
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(
            (millis(1234), millis(123_456)),
            ("1.2 ms".into(), "123 ms".into())
        );
    }
}
