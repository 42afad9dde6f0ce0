//! When to stop pre-copying: pure. From what each round did follows how long a freeze would be
//! now, and whether another round makes it shorter.
//!
//! A round sends what was written while the one before it ran. Where that takes less time than
//! the round before, the next is shorter still; where it does not, rounds only cost.

use std::time::Duration;

use super::{PAGE, RoundStats};

/// Sending this much in the freeze is not worth a round.
const ENOUGH: Duration = Duration::from_millis(2);
/// What is left has to shrink to this part of what it was, or the round was in vain.
const PROGRESS: f64 = 0.8;
/// In vain this often: it will not get better.
const PATIENCE: u32 = 2;
const MOST_ROUNDS: u32 = 60;
/// What a container that writes too fast is left of its processors, step by step, in percent. It
/// goes on, if slowly: nobody wants it to stop for seconds before it stops for less.
const SLOWER: [u32; 3] = [60, 35, 20];
/// A round of less does not say how fast the way is.
const TELLING: u64 = 256 << 10;
/// A round of more takes as long as sending it, whatever it waited for.
const LARGE: u64 = 32 << 20;
/// Until a round has said it.
const FIRST_GUESS: f64 = 100e6;
/// What a freeze takes with nothing left to send, and with each process: dump, restore, hand-over.
const BASE: Duration = Duration::from_millis(42);
const PER_PROCESS: Duration = Duration::from_millis(5);
/// And with each GiB that is there, whether or not it is left: it is looked through once more.
const PER_GIB: Duration = Duration::from_millis(7);

/// How a pre-copy goes.
#[derive(Debug, Clone)]
pub struct Plan {
    max_downtime: Duration,
    rounds: u32,
    in_vain: u32,
    bytes_per_s: f64,
    took: Option<Duration>,
    left: Option<f64>,
    /// How many steps of [`SLOWER`] were taken.
    slowed: usize,
}

/// What a freeze would be after the round that was just made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    pub dirty_pages_per_s: f64,
    pub bytes_per_s: f64,
    /// Written since this round began.
    pub left_pages: f64,
    pub freeze: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Round,
    /// Leave the container so many percent of its processors, and make another round.
    Slow {
        percent: u32,
    },
    Freeze,
    /// More rounds do not help, and the freeze would be longer than is allowed.
    GiveUp,
}

impl Plan {
    pub fn new(max_downtime: Duration) -> Self {
        Self {
            max_downtime,
            rounds: 0,
            in_vain: 0,
            bytes_per_s: FIRST_GUESS,
            took: None,
            left: None,
            slowed: 0,
        }
    }

    /// Takes in what a round did. `took`: until the destination had all of it; `waited`: of that,
    /// for the way there.
    pub fn after(
        &mut self,
        stats: &RoundStats,
        took: Duration,
        waited: Duration,
    ) -> (Next, Forecast) {
        self.rounds += 1;
        let sent = (stats.sent * PAGE) as f64;
        if stats.sent * PAGE >= TELLING {
            let sending = if stats.sent * PAGE >= LARGE {
                took
            } else {
                waited
            };
            self.bytes_per_s = sent / sending.as_secs_f64().max(1e-4);
        }
        // The first round finds everything written, which says nothing of how fast.
        let rate = match self.took {
            Some(before) => stats.written as f64 / before.as_secs_f64().max(1e-6),
            None => 0.0,
        };
        let left_pages = (rate * took.as_secs_f64()).min(stats.populated as f64);
        let sending = left_pages * PAGE as f64 / self.bytes_per_s;
        let base = BASE
            + PER_PROCESS * stats.processes.saturating_sub(1)
            + PER_GIB.mul_f64((stats.populated * PAGE) as f64 / f64::from(1 << 30));
        let forecast = Forecast {
            dirty_pages_per_s: rate,
            bytes_per_s: self.bytes_per_s,
            left_pages,
            freeze: base + Duration::from_secs_f64(sending),
        };
        let first = self.took.is_none();
        if let Some(before) = self.left {
            if sending > before * PROGRESS {
                self.in_vain += 1;
            } else {
                self.in_vain = 0;
            }
        }
        self.took = Some(took);
        if !first {
            self.left = Some(sending);
        }
        let next = if first {
            Next::Round
        } else if sending <= ENOUGH.as_secs_f64() {
            self.verdict(&forecast)
        } else if self.in_vain >= PATIENCE || self.rounds >= MOST_ROUNDS {
            self.steady(&forecast)
        } else {
            Next::Round
        };
        (next, forecast)
    }

    /// More of the same does not help.
    fn steady(&mut self, forecast: &Forecast) -> Next {
        if forecast.freeze > self.max_downtime
            && self.rounds < MOST_ROUNDS
            && let Some(percent) = SLOWER.get(self.slowed)
        {
            self.slowed += 1;
            self.in_vain = 0;
            self.left = None;
            return Next::Slow { percent: *percent };
        }
        self.verdict(forecast)
    }

    fn verdict(&self, forecast: &Forecast) -> Next {
        if forecast.freeze <= self.max_downtime {
            Next::Freeze
        } else {
            Next::GiveUp
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds against a link and a writer of so many bytes a second; what it came to.
    fn simulate(memory: u64, link: f64, writes: f64, allowed: u64) -> (Next, u32, Forecast) {
        let mut plan = Plan::new(Duration::from_millis(allowed));
        let mut writes = writes;
        let full = writes;
        let populated = memory / PAGE;
        let mut written = populated;
        for round in 1.. {
            let took = Duration::from_secs_f64((written * PAGE) as f64 / link + 0.002);
            let stats = RoundStats {
                populated,
                written,
                sent: written,
                ..RoundStats::default()
            };
            let (next, forecast) = plan.after(&stats, took, took);
            match next {
                Next::Round => {}
                Next::Slow { percent } => writes = full * f64::from(percent) / 100.0,
                Next::Freeze | Next::GiveUp => return (next, round, forecast),
            }
            written = ((writes * took.as_secs_f64()) as u64 / PAGE).min(populated);
        }
        unreachable!()
    }

    #[test]
    fn an_idle_container_is_frozen_after_two_rounds() {
        let (next, rounds, forecast) = simulate(1 << 30, 1e9, 0.0, 300);
        assert_eq!((next, rounds), (Next::Freeze, 2));
        assert!(forecast.freeze < Duration::from_millis(60));
    }

    #[test]
    fn a_writer_slower_than_the_link_is_caught_up_with() {
        let (next, rounds, forecast) = simulate(8 << 30, 117e6, 50e6, 300);
        assert_eq!(next, Next::Freeze);
        assert!((5..25).contains(&rounds), "{rounds}");
        assert!(forecast.freeze < Duration::from_millis(110), "{forecast:?}");
    }

    #[test]
    fn a_writer_somewhat_faster_than_the_link_is_slowed_down() {
        let (next, _, forecast) = simulate(1 << 30, 100e6, 150e6, 300);
        assert_eq!(next, Next::Freeze, "{forecast:?}");
        assert!(forecast.freeze < Duration::from_millis(300));
    }

    #[test]
    fn a_writer_faster_than_the_link_is_given_up_on() {
        let (next, rounds, forecast) = simulate(1 << 30, 50e6, 400e6, 300);
        assert_eq!(next, Next::GiveUp);
        assert!(rounds < 20, "{rounds}");
        assert!(forecast.freeze > Duration::from_secs(1));
        // Unless a long freeze is what was asked for.
        assert_eq!(simulate(64 << 20, 50e6, 200e6, 3_600_000).0, Next::Freeze);
    }
}
