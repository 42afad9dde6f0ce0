//! `godwit-sim`: runs seeds until one breaks a rule.

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use godwit_sim::{Bug, Run, simulate};

/// Runs whole clusters in virtual time, one per seed.
#[derive(Parser)]
#[command(name = "godwit-sim", version)]
struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this one alone
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event of the seed with its virtual time
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Put a mistake in, to see it found
    #[arg(long)]
    bug: Option<Bug>,
    /// Go on after a seed that breaks a rule
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => one(seed, &options),
        None => many(&options),
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let run = simulate(seed, options.bug, options.trace);
    println!(
        "seed {seed}: {} events, {} entries, {} requests and {} migrations acknowledged, {} \
         migrations done, {:.1} s of virtual time, hash {:016x}",
        run.events,
        run.entries,
        run.acknowledged,
        run.migrations,
        run.moved,
        run.micros as f64 / 1e6,
        run.hash
    );
    verdict(&run)
}

fn verdict(run: &Run) -> ExitCode {
    match &run.broken {
        None => {
            println!("seed {}: every rule held", run.seed);
            ExitCode::SUCCESS
        }
        Some(broken) => {
            println!("seed {}: {broken}", run.seed);
            println!("replay it with `--seed {} --trace`", run.seed);
            ExitCode::FAILURE
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let began = Instant::now();
    let (mut done, mut failed, mut events, mut migrations, mut moved, mut micros) =
        (0u64, 0u64, 0, 0, 0, 0);
    let mut told = began;
    for seed in options.from..options.from.saturating_add(options.seeds) {
        let run = simulate(seed, options.bug, false);
        done += 1;
        events += run.events;
        migrations += run.migrations;
        moved += run.moved;
        micros += run.micros;
        if run.broken.is_some() {
            failed += 1;
            verdict(&run);
            if !options.keep_going {
                break;
            }
        }
        if told.elapsed().as_secs() >= 5 {
            told = Instant::now();
            println!("{done} seeds, {:.0} a minute", rate(done, began));
        }
    }
    println!(
        "{done} seeds, {failed} failed: {events} events, {moved} of {migrations} migrations done, \
         {:.0} h of virtual time in {:.1} s, {:.0} seeds a minute",
        micros as f64 / 3.6e9,
        began.elapsed().as_secs_f64(),
        rate(done, began)
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn rate(done: u64, began: Instant) -> f64 {
    done as f64 * 60.0 / began.elapsed().as_secs_f64().max(1e-9)
}
