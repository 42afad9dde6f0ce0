//! What a migration would come to: the container is watched for a while, and nothing is sent.

use std::time::{Duration, Instant};

use godwit_runtime::memory::{Forecast, Next, Plan, RoundStats, Session};
use godwit_types::{
    CommandFailure, ContainerId, Estimate, FailureKind, MigrationMode, MigrationOptions,
};

use super::{carries, rounds_asked_for};
use crate::{failures, host::Host, ledger::Answer};
use godwit_types::Outcome;

/// Bytes a second that two hosts are taken to manage when no limit is given.
const USUAL: f64 = 400e6;

/// The part of the time that the first of two looks takes: who writes the same pages again and
/// again has soon written all of them, and a long look would take it for slow.
const SHORT: u32 = 12;

/// Pages written in so much time.
type Seen = (Duration, u64);

/// Looks for a short and for a long time, together `watch_for`.
pub async fn sample(
    host: &Host,
    container: &ContainerId,
    watch_for: Duration,
    options: &MigrationOptions,
) -> Answer {
    let runtime = &host.runtime;
    // Whether it can be moved at all is asked apart.
    let need = runtime.need(container, carries(host, options)).await;
    let need = need.map_err(|error| failures::of_runtime(&error))?.memory;
    let estimate = match rounds_asked_for(host, options) {
        Ok(true) => {
            let filled = runtime.filled(container).await;
            filled.map_err(|error| failures::of_runtime(&error))?;
            let (first, seen) = watch(host, container, watch_for).await?;
            predict(&first, seen, options)
        }
        Ok(false) => {
            let bytes_per_s = options.max_bandwidth.map_or(USUAL, |limit| limit as f64);
            let millis = 60 + (need as f64 / bytes_per_s * 1000.0) as u64;
            Estimate {
                bytes: need,
                resident_bytes: need,
                predicted_freeze_us: millis * 1000,
                ..Estimate::default()
            }
        }
        Err(failure) => Estimate {
            bytes: need,
            resident_bytes: need,
            against: vec![failure.message],
            ..Estimate::default()
        },
    };
    Ok(Outcome::Sampled { estimate })
}

async fn watch(
    host: &Host,
    container: &ContainerId,
    watch_for: Duration,
) -> Result<(RoundStats, [Seen; 2]), CommandFailure> {
    let look = async |session: Session| {
        let pids = host.runtime.processes(container).await;
        let pids = pids.map_err(|error| failures::of_runtime(&error))?;
        let looked = tokio::task::spawn_blocking(move || {
            let mut session = session;
            let stats = session.round(&pids, &mut |_| Ok(()));
            (session, stats)
        });
        let (session, stats) = looked
            .await
            .map_err(|error| CommandFailure::new(FailureKind::Internal, error.to_string()))?;
        let stats = stats.map_err(|error| {
            let text = format!("memory can't be watched: {error}");
            CommandFailure::new(FailureKind::Internal, text)
        })?;
        Ok::<_, CommandFailure>((session, stats))
    };
    let (mut session, first) = look(host.runtime.session()).await?;
    let short = watch_for / SHORT;
    let mut seen = [(short, 0), (watch_for - short, 0)];
    let mut began = Instant::now();
    for (time, written) in &mut seen {
        tokio::time::sleep(time.saturating_sub(began.elapsed())).await;
        *time = began.elapsed();
        began = Instant::now();
        let (looked, stats) = look(session).await?;
        session = looked;
        *written = stats.written;
    }
    tokio::task::spawn_blocking(move || drop(session));
    Ok((first, seen))
}

/// How many pages will be written in so much time.
fn written_in([short, long]: [Seen; 2], time: Duration) -> f64 {
    let [first, last] = [short.0, long.0].map(|time| time.as_secs_f64());
    let time = time.as_secs_f64();
    let early = short.1 as f64;
    if time <= first {
        return early * time / first;
    }
    // A part of what is written later was written already.
    let later = (long.1 as f64 - early).max(0.0) / (last - first).max(1e-6);
    early + later * (time - first)
}

/// Plays the rounds that would follow.
fn predict(first: &RoundStats, seen: [Seen; 2], options: &MigrationOptions) -> Estimate {
    let page = godwit_runtime::memory::PAGE;
    let bytes_per_s = options.max_bandwidth.map_or(USUAL, |limit| limit as f64);
    // Pages without zeros; of those that are written, as many are.
    let share = first.sent as f64 / (first.sent + first.zero).max(1) as f64;
    let rate = seen[0].1 as f64 / seen[0].0.as_secs_f64();
    let mut plan = Plan::new(Duration::from_millis(options.max_downtime_ms));
    let (mut written, mut sent_bytes, mut rounds) = (first.populated, 0, 0);
    let mut slowed = 1.0;
    let forecast: Forecast = loop {
        rounds += 1;
        let stats = RoundStats {
            populated: first.populated,
            processes: first.processes,
            written,
            sent: (written as f64 * share) as u64,
            ..RoundStats::default()
        };
        sent_bytes += stats.sent * page;
        let sending = (stats.sent * page) as f64 / bytes_per_s;
        let took = Duration::from_secs_f64(sending) + Duration::from_millis(3);
        let (next, forecast) = plan.after(&stats, took, took);
        match next {
            // The rest comes after the freeze.
            _ if options.mode == MigrationMode::PostCopy => break forecast,
            Next::Round => {}
            Next::Slow { percent } => slowed = f64::from(percent) / 100.0,
            Next::Freeze | Next::GiveUp => break forecast,
        }
        written = (written_in(seen, took.mul_f64(slowed)) as u64).min(first.populated);
    };
    Estimate {
        rounds,
        bytes: sent_bytes,
        predicted_freeze_us: forecast.freeze.as_micros() as u64,
        dirty_pages_per_s: rate as u64,
        resident_bytes: first.populated * page,
        note: None,
        against: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(populated: u64, written: u64) -> RoundStats {
        RoundStats {
            populated,
            written,
            sent: written,
            ..RoundStats::default()
        }
    }

    #[test]
    fn what_is_written_faster_than_sent_takes_a_long_freeze() {
        let options = MigrationOptions::default();
        let seen = |short, long| {
            [
                (Duration::from_millis(250), short),
                (Duration::from_millis(2750), long),
            ]
        };
        let large = stats(262_144, 262_144);
        let idle = predict(&large, seen(0, 0), &options);
        assert_eq!(idle.rounds, 2);
        assert!(idle.predicted_freeze_us < 80_000, "{idle:?}");
        let options = MigrationOptions {
            max_bandwidth: Some(5 << 20),
            ..options
        };
        let busy = predict(&large, seen(12_800, 140_800), &options);
        assert!(busy.predicted_freeze_us > 1_000_000, "{busy:?}");
        // All of a small memory, again and again: as fast, though it is no more in a long time.
        let options = MigrationOptions {
            max_bandwidth: Some(2 << 20),
            ..options
        };
        let small = predict(&stats(2048, 2048), seen(1500, 2048), &options);
        assert!(small.predicted_freeze_us > 1_000_000, "{small:?}");
        assert_eq!(small.dirty_pages_per_s, 6000);
    }
}
