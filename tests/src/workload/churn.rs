//! The hard case for equal memory after a move: threads that all the while map, unmap, move, give
//! back and protect memory, and fork children that share it, copy it, live on or run the program
//! anew. Each knows what every page must hold, and checks.
//!
//! It prints how many operations were done, one number a line. The first page that is wrong ends
//! everything with a line that begins with `bad`. On SIGTERM all is checked once more: `ok COUNT`.

mod again;
mod area;
mod copy;
mod partner;
mod worker;

use std::{
    path::PathBuf,
    process::{self, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use worker::Worker;

use super::{sys, term};

/// Between two lines that say how far it is.
const PROGRESS: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[arg(long, default_value_t = 4)]
    threads: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the mapped files are kept
    #[arg(long, default_value = "/tmp")]
    dir: PathBuf,
    /// A child: check some memory and run the program anew so many times
    #[arg(long, hide = true)]
    again: Option<u32>,
}

/// Until SIGTERM.
pub fn run(options: &Options) -> Result<ExitCode> {
    if let Some(left) = options.again {
        return Ok(bad_or(again::run(options.seed, left)));
    }
    let stop = term::flag()?;
    let count = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..options.threads)
        .map(|number| {
            let (stop, count, options) = (stop.clone(), count.clone(), options.clone());
            thread::spawn(move || work(&options, number, &stop, &count))
        })
        .collect();
    println!("ready");
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(PROGRESS);
        println!("{}", count.load(Ordering::Relaxed));
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))?;
    }
    println!("ok {}", count.load(Ordering::Relaxed));
    Ok(ExitCode::SUCCESS)
}

fn work(options: &Options, number: usize, stop: &AtomicBool, count: &AtomicU64) {
    let done = Worker::new(number, options.seed, &options.dir).and_then(|mut worker| {
        while !stop.load(Ordering::Relaxed) {
            worker.step()?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        worker.finish()
    });
    if let Err(error) = done {
        sys::say(&format!("bad thread {number}: {error:#}"));
        // The others must not go on as if nothing had been.
        process::exit(1);
    }
}

fn bad_or(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sys::say(&format!("bad program: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
