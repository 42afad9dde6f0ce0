//! Memory and the writable layer ahead of the freeze: rounds to the destination while the container
//! runs, and what a migration would come to. [`crate::commands`] calls it.
//!
//! Between the last round and the transfer in the freeze, the [`Flow`] waits with the
//! host ([`Flows`]); it is this agent's alone, so that a freeze which another agent began can't
//! be finished by this one, only taken back.

mod flow;
mod flows;
mod layer;
mod sample;
mod throttle;

pub use flow::{Flow, Leaves};
pub use flows::Flows;
pub use sample::sample;
pub use throttle::{Throttled, restore};

use std::time::{Duration, Instant};

use godwit_runtime::memory::{Next, PAGE, Plan};
use godwit_types::{
    CommandFailure, ContainerId, FailureKind, Generation, HostName, MAX_ROUNDS, MigrationId,
    MigrationMode, MigrationOptions, Outcome, Progress,
};
use tracing::info;

use crate::{failures, host::Host, ledger::Answer};

/// A round of the writable layer that takes longer is followed by another one, so often.
const LATE: Duration = Duration::from_millis(50);
const LATE_ROUNDS: u32 = 3;

/// Sends rounds until what is left fits in the freeze.
pub async fn run(
    host: &Host,
    migration: &MigrationId,
    container: &ContainerId,
    generation: Generation,
    to: &HostName,
    address: &str,
    options: &MigrationOptions,
) -> Answer {
    let answer = rounds(host, migration, container, generation, to, address, options).await;
    if answer.is_err() {
        host.throttled.release(&host.runtime, container).await;
    }
    answer
}

/// May be dropped at any moment, when the migration is undone: the flow ends with it, and the
/// destination forgets what came.
async fn rounds(
    host: &Host,
    migration: &MigrationId,
    container: &ContainerId,
    generation: Generation,
    to: &HostName,
    address: &str,
    options: &MigrationOptions,
) -> Answer {
    host.flows.forget(container);
    if !rounds_asked_for(host, options)? {
        return Ok(Outcome::PreCopied {
            rounds: Vec::new(),
            bytes: 0,
            predicted_freeze_us: 0,
        });
    }
    let runtime = &host.runtime;
    // What it was restored from may not be in place yet.
    let filled = runtime.filled(container).await;
    filled.map_err(|error| failures::of_runtime(&error))?;
    let mut flow = Flow::open(host, migration, container, generation, to, address, options).await?;
    let leaves = flow.leaves();
    let mut plan = Plan::new(Duration::from_millis(options.max_downtime_ms));
    let mut rounds = Vec::new();
    let mut progress = Progress::default();
    let mut layer_bytes = flow.layer_round(host, options.max_bandwidth).await?;
    let mut late = 0;
    loop {
        let number = rounds.len() as u32 + 1;
        let processes = flow.processes(host).await?;
        progress.round = number;
        let tell = |sent: u64| {
            let mut now = progress.clone();
            now.pages_left = now.pages_total.saturating_sub(sent);
            host.progress.tell(migration, now);
        };
        let (mut round, stats, waited) =
            flow.round(&processes, options.max_bandwidth, tell).await?;
        // What is written to memory meanwhile counts as left by this round.
        let began = Instant::now();
        layer_bytes += flow.layer_round(host, options.max_bandwidth).await?;
        let layer_took = began.elapsed();
        round.micros += layer_took.as_micros() as u64;
        round.sent_bytes += std::mem::take(&mut layer_bytes);
        let took = Duration::from_micros(round.micros);
        let (next, forecast) = plan.after(&stats, took, waited);
        round.number = number;
        round.dirty_pages = forecast.left_pages as u64;
        info!(
            %migration,
            round = number,
            sent_mib = round.sent_bytes >> 20,
            written = stats.written,
            millis = took.as_millis() as u64,
            freeze_ms = forecast.freeze.as_millis() as u64,
            "round"
        );
        rounds.push(round);
        progress = Progress {
            round: number,
            pages_left: forecast.left_pages as u64,
            pages_total: forecast.left_pages as u64,
            dirty_pages_per_s: forecast.dirty_pages_per_s as u64,
            bytes_per_s: forecast.bytes_per_s as u64,
            predicted_freeze_us: forecast.freeze.as_micros() as u64,
        };
        host.progress.tell(migration, progress.clone());
        match next {
            // What is left now does not lie in the freeze.
            _ if leaves.is_some() => break,
            Next::Slow { percent } => host.throttled.slow(runtime, container, percent).await,
            Next::Round if rounds.len() < MAX_ROUNDS => {}
            // A layer that was long on its way has changed meanwhile.
            Next::Freeze if layer_took > LATE && late < LATE_ROUNDS => late += 1,
            Next::Round | Next::Freeze => break,
            Next::GiveUp => return Err(CommandFailure::not_converging(&progress, PAGE, options)),
        }
    }
    let bytes = flow.bytes();
    host.flows.keep(container, flow);
    Ok(Outcome::PreCopied {
        rounds,
        bytes,
        predicted_freeze_us: progress.predicted_freeze_us,
    })
}

/// Whether memory would come before the freeze.
pub fn carries(host: &Host, options: &MigrationOptions) -> bool {
    rounds_asked_for(host, options).unwrap_or(false)
}

/// False: all memory is sent in the freeze.
fn rounds_asked_for(host: &Host, options: &MigrationOptions) -> Result<bool, CommandFailure> {
    let problem = host.runtime.carry_problem();
    match (options.mode, problem) {
        (MigrationMode::Stop, _) | (MigrationMode::Auto, Some(_)) => Ok(false),
        (MigrationMode::Auto | MigrationMode::PreCopy | MigrationMode::PostCopy, None) => Ok(true),
        (MigrationMode::PreCopy | MigrationMode::PostCopy, Some(problem)) => {
            let text = format!("memory can't be sent ahead of the freeze: {problem}");
            Err(CommandFailure::new(FailureKind::Unfit, text))
        }
    }
}
