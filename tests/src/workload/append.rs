//! Appends one number after another to a file in each of several directories, with fsync, and says
//! each number once all of them have it. At its end it reads the files back.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::term;

/// Between two numbers.
const PAUSE: Duration = Duration::from_millis(3);
/// Numbers between two new files.
const SELDOM: u64 = 50;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// MiB of a file that is written once, in the first directory
    #[arg(long, default_value_t = 0)]
    large: usize,
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let stop = term::flag()?;
    let block = vec![7_u8; 1 << 20];
    if options.large > 0 {
        let mut large = File::create(options.dirs[0].join("large"))?;
        for _ in 0..options.large {
            large.write_all(&block)?;
        }
        large.sync_all()?;
    }
    let mut files = Vec::new();
    for dir in &options.dirs {
        let path = dir.join("numbers");
        files.push(File::options().append(true).create_new(true).open(path)?);
    }
    println!("ready");
    let mut next = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        for file in &mut files {
            file.write_all(&next.to_le_bytes())?;
            file.sync_all()?;
        }
        if next.is_multiple_of(SELDOM) {
            for dir in &options.dirs {
                fs::write(dir.join(format!("at-{next}")), next.to_le_bytes())?;
            }
        }
        println!("{next}");
        next += 1;
        thread::sleep(PAUSE);
    }
    for dir in &options.dirs {
        let numbers = fs::read(dir.join("numbers"))?;
        let found: Vec<u64> = numbers
            .chunks(8)
            .map(|bytes| bytes.try_into().map_or(u64::MAX, u64::from_le_bytes))
            .collect();
        let whole = found.iter().copied().eq(0..next);
        ensure!(whole, "`{}` lost or repeats a number", dir.display());
        for at in (0..next).step_by(SELDOM as usize) {
            let found = fs::read(dir.join(format!("at-{at}")))?;
            ensure!(found == at.to_le_bytes(), "`{}` lost {at}", dir.display());
        }
    }
    if options.large > 0 {
        let large = fs::read(options.dirs[0].join("large"))?;
        let same = large.chunks(1 << 20).all(|chunk| chunk == block);
        ensure!(same && large.len() == options.large << 20, "large differs");
    }
    println!("ok {next}");
    Ok(ExitCode::SUCCESS)
}
