//! What a migration would come to: the container is watched for a while, and nothing is sent.

use std::time::{Duration, Instant};

use godwit_runtime::memory::{Forecast, Next, Plan, RoundStats, Session};
use godwit_types::{CommandFailure, ContainerId, Estimate, FailureKind, MigrationOptions};

use super::{carries, rounds_asked_for};
use crate::{failures, host::Host, ledger::Answer};
use godwit_types::Outcome;

/// Bytes a second that two hosts are taken to manage when no limit is given.
const USUAL: f64 = 400e6;

/// Looks twice, `watch_for` apart.
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
            let (first, second, apart) = watch(host, container, watch_for).await?;
            predict(&first, &second, apart, options)
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
) -> Result<(RoundStats, RoundStats, Duration), CommandFailure> {
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
    let began = Instant::now();
    let (session, first) = look(Session::default()).await?;
    tokio::time::sleep(watch_for).await;
    let apart = began.elapsed();
    let (session, second) = look(session).await?;
    tokio::task::spawn_blocking(move || drop(session));
    Ok((first, second, apart))
}

/// Plays the rounds that would follow.
fn predict(
    first: &RoundStats,
    second: &RoundStats,
    apart: Duration,
    options: &MigrationOptions,
) -> Estimate {
    let page = godwit_runtime::memory::PAGE;
    let bytes_per_s = options.max_bandwidth.map_or(USUAL, |limit| limit as f64);
    // Pages without zeros; of those that are written, as many are.
    let share = first.sent as f64 / (first.sent + first.zero).max(1) as f64;
    let rate = second.written as f64 / apart.as_secs_f64();
    let mut plan = Plan::new(Duration::from_millis(options.max_downtime_ms));
    let (mut written, mut sent_bytes, mut rounds) = (first.populated, 0, 0);
    let mut slowed = 1.0;
    let forecast: Forecast = loop {
        rounds += 1;
        let stats = RoundStats {
            populated: first.populated,
            written,
            sent: (written as f64 * share) as u64,
            ..RoundStats::default()
        };
        sent_bytes += stats.sent * page;
        let sending = (stats.sent * page) as f64 / bytes_per_s;
        let took = Duration::from_secs_f64(sending) + Duration::from_millis(3);
        let (next, forecast) = plan.after(&stats, 1, took, took);
        match next {
            Next::Round => {}
            Next::Slow { percent } => slowed = f64::from(percent) / 100.0,
            Next::Freeze | Next::GiveUp => break forecast,
        }
        written = ((rate * slowed * took.as_secs_f64()) as u64).min(first.populated);
    };
    Estimate {
        rounds,
        bytes: sent_bytes,
        predicted_freeze_us: forecast.freeze.as_micros() as u64,
        dirty_pages_per_s: rate as u64,
        resident_bytes: first.populated * page,
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
        let second = Duration::from_secs(1);
        let idle = predict(
            &stats(262_144, 262_144),
            &stats(262_144, 0),
            second,
            &options,
        );
        assert_eq!(idle.rounds, 2);
        assert!(idle.predicted_freeze_us < 80_000, "{idle:?}");
        let options = MigrationOptions {
            max_bandwidth: Some(50 << 20),
            ..options
        };
        let busy = predict(
            &stats(262_144, 262_144),
            &stats(262_144, 51_200),
            second,
            &options,
        );
        assert!(busy.predicted_freeze_us > 1_000_000, "{busy:?}");
    }
}
