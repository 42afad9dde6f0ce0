//! A server with as much memory as asked for, in one process or several, that is rewritten at a
//! given rate and can say at any time whether every page holds what it should.
//!
//! The first process answers lines on TCP, for [`super::witness`]:
//!
//! | line | answer |
//! |---|---|
//! | `ping N` | `pong N` |
//! | `pause` | `paused`, when no process writes any more |
//! | `go` | `going` |
//! | `verify` | `ok PAGES` or `bad PROCESS PAGE` |
//! | `hash` | a hash of each process's memory |
//! | `exec` | none: the first process runs its program anew |
//! | `grow` | none: the first process takes memory until it is killed |

mod family;
mod region;
mod serve;
mod strict;

use std::{process::ExitCode, sync::atomic::Ordering, thread, time::Duration};

use anyhow::{Result, ensure};
use family::Family;

use super::{page, term};

/// What to be.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// MiB of each process
    #[arg(long, value_name = "MIB")]
    rss: usize,
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// MB rewritten each second, by all processes together
    #[arg(long, value_name = "MB_PER_S", default_value_t = 0)]
    rate: u64,
    /// Answer on this port
    #[arg(long, value_name = "PORT")]
    echo: Option<u16>,
    /// MiB that are filled before the first fork: every process has a copy on write of them
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    shared: usize,
    /// Words of a page that differ; the rest repeats them, so that it compresses
    #[arg(long, default_value_t = page::WORDS, value_parser = clap::value_parser!(u64).range(1..=page::WORDS))]
    words: u64,
    /// Forbid every process, by a filter that kills, what could look into another's memory
    #[arg(long)]
    strict: bool,
}

/// Until SIGTERM; then everything is verified once more.
pub fn run(options: &Options) -> Result<ExitCode> {
    ensure!(
        options.rss > 0 && options.processes > 0,
        "`--rss` and `--processes` are at least 1"
    );
    // The children inherit the mask: they end when the first process does.
    term::block()?;
    if options.strict {
        strict::forbid()?;
        strict::holds()?;
    }
    let rate = options.rate * 1_000_000 / options.processes as u64;
    let family = Family::start(
        options.processes,
        options.shared * 256,
        options.rss * 256,
        options.words,
        rate,
    )?;
    let stop = term::flag()?;
    if let Some(port) = options.echo {
        serve::start(port, family.clone())?;
    }
    println!("ready");
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    family.ask_all("pause")?;
    let verdict = family.verify()?;
    if options.strict {
        strict::holds()?;
    }
    println!("{verdict}");
    Ok(ExitCode::from(u8::from(!verdict.starts_with("ok"))))
}
