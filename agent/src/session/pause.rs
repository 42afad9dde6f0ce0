//! How long to wait between tries, and for an answer. Short at first: after a leader's death
//! the next one shall have every agent within a second or two.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use godwit_proto::limits;

/// As long as an election may be under way.
const SHORT: Duration = Duration::from_millis(300);
/// While nobody leads for longer.
const LONG: Duration = Duration::from_secs(2);
/// Tries that are made with short pauses.
const EAGER: u32 = 30;

/// The pause after so many tries in vain, spread so that agents do not come all at once.
pub fn delay(failures: u32) -> Duration {
    // A fresh state hashes differently every time: enough for a spread.
    let share = 0.5 + (RandomState::new().hash_one(failures) % 1024) as f64 / 2048.0;
    full_delay(failures).mul_f64(share)
}

fn full_delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::from_millis(50),
        1..EAGER => (Duration::from_millis(50) * (1 << failures.min(4))).min(SHORT),
        _ => LONG,
    }
}

/// How long to wait for a member's first answer. A host that is down does not even refuse; on
/// a slow link the later rounds have more patience.
pub fn patience(failures: u32) -> Duration {
    if failures < EAGER / 3 {
        Duration::from_secs(1)
    } else {
        limits::HANDSHAKE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_during_an_election_and_bounded_after() {
        let election: Duration = (0..6).map(full_delay).sum();
        assert!(election < Duration::from_millis(1500), "{election:?}");
        for failures in 0..100 {
            let delay = delay(failures);
            assert!(
                delay >= Duration::from_millis(25) && delay <= LONG,
                "{delay:?}"
            );
            assert!(failures >= EAGER || delay <= SHORT);
        }
    }
}
