//! What the client saw of a move, from the lines it printed.

use crate::workload::{redis::Gap, witness::Rate};

/// For the rate before a move, in milliseconds.
const BEFORE: u64 = 1000;
/// Windows of the client that are needed to speak of a rate.
const WINDOWS: usize = 2;

/// The lines of a `witness`.
pub struct Observed {
    gaps: Vec<Gap>,
    rates: Vec<Rate>,
    pub trouble: Vec<String>,
}

impl Observed {
    pub fn parse(log: &str) -> Self {
        let trouble = |line: &&str| line.starts_with("wrong") || line.starts_with("lost");
        Self {
            gaps: lines(log),
            rates: lines(log),
            trouble: log.lines().filter(trouble).map(str::to_owned).collect(),
        }
    }

    /// Until when it has told, in milliseconds since 1970.
    pub fn until(&self) -> u64 {
        self.rates.last().map_or(0, |rate| rate.at_ms)
    }

    /// The longest pause between two answers that ended in this time.
    pub fn gap(&self, from: u64, to: u64) -> Option<&Gap> {
        self.gaps
            .iter()
            .filter(|gap| (from..=to).contains(&gap.at_ms))
            .max_by(|a, b| a.gap_ms.total_cmp(&b.gap_ms))
    }

    /// Answers a second before a move's start, and from there to its freeze. None: too short a
    /// time to say.
    pub fn throughput(&self, started: u64, frozen: u64) -> Option<(f64, f64)> {
        let before = self.rate(started.saturating_sub(BEFORE), started)?;
        Some((before, self.rate(started, frozen)?))
    }

    /// Over the windows that lie within this time.
    fn rate(&self, from: u64, to: u64) -> Option<f64> {
        let within = |rate: &&Rate| rate.at_ms - rate.window_ms as u64 >= from && rate.at_ms <= to;
        let rates: Vec<&Rate> = self.rates.iter().filter(within).collect();
        if rates.len() < WINDOWS {
            return None;
        }
        let (answers, ms) = rates.iter().fold((0.0, 0.0), |(answers, ms), rate| {
            (answers + rate.per_s * rate.window_ms, ms + rate.window_ms)
        });
        Some(answers / ms)
    }
}

fn lines<T: serde::de::DeserializeOwned>(log: &str) -> Vec<T> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_found_among_what_the_client_said() {
        let rate = |at: u64, per_s: u64| {
            format!("{{\"per_s\":{per_s},\"at_ms\":{at},\"window_ms\":100}}\n")
        };
        let mut log = "connected\n".to_owned();
        for at in 1..=10 {
            log += &rate(1000 + at * 100, 2000);
        }
        for at in 11..=15 {
            log += &rate(1000 + at * 100, 1500);
        }
        log += "{\"gap_ms\":7.0,\"at_ms\":1200}\n{\"gap_ms\":80.5,\"at_ms\":2600}\n";
        log += &rate(2700, 300);
        let seen = Observed::parse(&log);
        assert!(seen.trouble.is_empty());
        assert_eq!(seen.until(), 2700);
        assert_eq!(seen.gap(2000, 3000).unwrap().gap_ms, 80.5);
        assert_eq!(seen.throughput(2000, 2519), Some((2000.0, 1500.0)));
        assert_eq!(seen.throughput(2000, 2050), None);
    }
}
